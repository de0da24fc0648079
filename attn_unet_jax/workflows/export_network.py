"""Exports the network of a run, or the mean of those of several, in one of two formats."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from attn_unet_jax.graphs.graph import OPSET
from attn_unet_jax.graphs.values import UnsupportedProgramError
from attn_unet_jax.graphs.window import OUTPUT
from attn_unet_jax.inference.exported_window import export_window
from attn_unet_jax.inference.onnx_window import (
  TOLERANCE,
  compare_in_onnxruntime,
  name_inputs,
  write_onnx_window,
)
from attn_unet_jax.inference.sliding import SlidingWindow
from attn_unet_jax.patches.batch import output_shape
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.extras import import_extra
from attn_unet_jax.workflows.load_run import BestCheckpoint
from attn_unet_jax.workflows.network import use_own_forms

ExportFormat = Literal["stablehlo", "onnx"]
_NEEDED_BY = "--format=onnx"


@dataclasses.dataclass(frozen=True)
class ExportedNetwork:
  """The file of a network, and what the contract says about it."""

  content: bytes
  about: dict[str, Any]


def export_network(
  workdirs: Sequence[Path], members: Sequence[BestCheckpoint], export_format: ExportFormat
) -> ExportedNetwork:
  """Exports what one run or the mean of several says about windows.

  Raises:
    UserError: a network cannot be written in this format, or a package is not installed.
  """
  uses_statistics = any(one.config.data.normalisation == "zscore" for one in members)
  if export_format == "onnx":
    return _export_onnx(workdirs, members, uses_statistics)
  # A file for other machines calls nothing of this one.
  systems = [
    SlidingWindow(one.config, use_own_forms(one.module)).use(one.variables) for one in members
  ]
  exported = export_window(systems, members[0].config.window, uses_statistics=uses_statistics)
  arrays = zip(name_inputs(uses_statistics=uses_statistics), exported.in_avals, strict=True)
  about = {
    "jax": jax.__version__,
    "platforms": exported.platforms,
    # JAX reads a file by the calling convention it was written in, within a range of versions.
    "calling_convention_version": exported.calling_convention_version,
    "inputs": [_describe_array(name, one.shape) for name, one in arrays],
    "output": _describe_array(OUTPUT, exported.out_avals[0].shape),
  }
  return ExportedNetwork(exported.mlir_module_serialized, about)


def _export_onnx(
  workdirs: Sequence[Path], members: Sequence[BestCheckpoint], uses_statistics: bool
) -> ExportedNetwork:
  # Before the work: it is what the answer is checked in.
  onnxruntime = import_extra("onnxruntime", "onnx", _NEEDED_BY)
  systems = [SlidingWindow(one.config, widen_network(one.module)) for one in members]
  for system, one in zip(systems, members, strict=True):
    system.use(one.variables)
  first = members[0]
  window, name = first.config.window, ",".join(map(str, workdirs))
  try:
    content = write_onnx_window(
      systems, window, uses_statistics=uses_statistics, extra="onnx", needed_by=_NEEDED_BY
    )
  except UnsupportedProgramError as error:
    networks = ", ".join(dict.fromkeys(one.config.model.name for one in members))
    raise UserError(
      f"{name}: {networks} cannot be written as ONNX ({error}); use --format=stablehlo"
    ) from None
  # The rules that write operations are ours: each file is compared before anybody relies on it.
  difference = compare_in_onnxruntime(
    content, systems, window, uses_statistics=uses_statistics, needed_by=_NEEDED_BY
  )
  # So written, NaN is refused too.
  if not difference <= TOLERANCE:
    raise UserError(
      f"{name}: its probabilities in onnxruntime differ by {difference:.2g} from the run's, more "
      f"than {TOLERANCE:.0e}; use --format=stablehlo"
    )
  answer = output_shape(window, first.module.output_margin)
  shapes = [("n", *window), (), ()]
  names = name_inputs(uses_statistics=uses_statistics)
  about = {
    "opset": OPSET,
    "checked": {"in": f"onnxruntime {onnxruntime.__version__}", "difference": difference},
    # Without z-scores there is one input, and the two scalars are left over.
    "inputs": [_describe_array(*one) for one in zip(names, shapes, strict=False)],
    "output": _describe_array(OUTPUT, ("n", *answer, len(first.classes) + 1)),
  }
  return ExportedNetwork(content, about)


def widen_network(module: nn.Module) -> nn.Module:
  """Returns the network that computes in float32."""
  # onnxruntime has no convolutions in bfloat16, and OpenVINO is told its type apart.
  dtype = getattr(module, "dtype", None)
  return module if dtype is None else module.clone(dtype=jnp.dtype(jnp.float32))


def _describe_array(name: str, shape: Sequence[object]) -> dict[str, Any]:
  # As texts: the number of windows is a letter.
  return {"name": name, "dtype": "float32", "shape": [str(n) for n in shape]}
