"""Writes a function of a batch of windows as an ONNX model."""

from collections.abc import Callable, Sequence
from typing import Any

from attn_unet_jax.graphs.graph import BATCH, Graph
from attn_unet_jax.graphs.translate import trace_program, translate_program
from attn_unet_jax.models.ops.single import single_operations
from attn_unet_jax.runtime.extras import import_extra

OUTPUT = "probabilities"


def write_window_model(
  function: Callable[..., Any],
  window: Sequence[int],
  names: Sequence[str],
  extra: str,
  needed_by: str,
) -> Any:
  """Writes a function of windows `[N, X, Y, Z]` and of scalars as an ONNX model, for any N.

  Args:
    function: maps float32 arrays to one array `[N, ...]`; no window changes another's answer.
    window: X, Y, Z.
    names: the names of the inputs: that of the windows and those of the scalars.
    extra: the extra that brings the package `onnx`.
    needed_by: the flag that needs it.

  Raises:
    UnsupportedProgramError: the function has an operation that ONNX or these rules do not know.
    UserError: the package is not installed.
  """
  onnx = import_extra("onnx", extra, needed_by)
  shapes = [(BATCH, *window), *[()] * (len(names) - 1)]
  with single_operations():
    program = trace_program(function, *shapes)
  graph = Graph(onnx)
  inputs = [graph.add_input(name, shape) for name, shape in zip(names, shapes, strict=True)]
  (answer,) = translate_program(graph, program, inputs)
  return graph.finish(graph.settle(answer), OUTPUT)
