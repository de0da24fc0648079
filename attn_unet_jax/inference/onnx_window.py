"""Writes a window of one network or several as ONNX, and compares it with the networks."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from attn_unet_jax.graphs.window import write_window_model
from attn_unet_jax.inference.exported_window import average_values
from attn_unet_jax.inference.sliding import Shape, SlidingWindow
from attn_unet_jax.runtime.extras import import_extra

# What a runtime may differ by from the networks in float32: sums are rounded in another order.
TOLERANCE = 1e-5


def name_inputs(*, uses_statistics: bool) -> tuple[str, ...]:
  """Returns the names of what a written window takes: HU and, for a z-score, mean and sd."""
  return ("hu", "mean", "sd") if uses_statistics else ("hu",)


def write_onnx_window(
  systems: Sequence[SlidingWindow],
  window: Shape,
  *,
  uses_statistics: bool,
  extra: str,
  needed_by: str,
) -> bytes:
  """Writes what systems say about windows as an ONNX model, as `export_window` does as StableHLO.

  Args:
    systems: with parameters; one or more, with the same classes and margin.
    window: X, Y, Z.
    uses_statistics: whether mean and sd are inputs.
    extra: the extra that brings the package `onnx`.
    needed_by: the flag that needs it.

  Raises:
    UnsupportedProgramError: an operation of a network cannot be written.
    UserError: the package is not installed.
  """

  def predict_windows(hu: jax.Array, *statistics: jax.Array) -> jax.Array:
    """Returns the probabilities of windows by all systems together."""
    about = statistics or (0.0, 1.0)
    return average_values(one.predict_windows(one.variables, hu, *about) for one in systems)

  names = name_inputs(uses_statistics=uses_statistics)
  model = write_window_model(predict_windows, window, names, extra, needed_by)
  content: bytes = model.SerializeToString()
  return content


def compare_in_onnxruntime(
  content: bytes,
  systems: Sequence[SlidingWindow],
  window: Shape,
  *,
  uses_statistics: bool,
  needed_by: str,
) -> float:
  """Returns by how much a written window differs at most from the systems, on two drawn windows.

  Raises:
    UserError: onnxruntime is not installed.
  """
  onnxruntime = import_extra("onnxruntime", "onnx", needed_by)
  session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
  # Two windows, since the model must take any number of them.
  hu, mean, sd = draw_windows(window, 2), np.float32(-150), np.float32(400)
  names = name_inputs(uses_statistics=uses_statistics)
  given = (hu, np.asarray(mean), np.asarray(sd))
  # Without a z-score mean and sd are no inputs, and stay unnamed.
  (found,) = session.run(None, dict(zip(names, given, strict=False)))
  difference = 0.0
  # As `write_onnx_window` fixes them where they are no inputs.
  statistics = (mean, sd) if uses_statistics else (0.0, 1.0)
  for values, one in zip(found, hu, strict=True):
    answers = (system.window(system.variables, one, *statistics) for system in systems)
    expected: Any = average_values(answers)
    difference = max(difference, float(np.abs(values - np.asarray(expected)).max()))
  return difference


def draw_windows(window: Shape, count: int) -> np.ndarray:
  """Draws HU of windows, float32 `[N, X, Y, Z]`: blocks of tissue, with noise."""
  rng = np.random.default_rng(0)
  coarse = rng.normal(0, 120, (count, *(-(-n // 8) for n in window)))
  blocks = np.kron(coarse, np.ones((1, 8, 8, 8)))[:, : window[0], : window[1], : window[2]]
  return (blocks + rng.normal(0, 20, blocks.shape)).astype(np.float32)
