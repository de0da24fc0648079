"""Computes windows in OpenVINO, which is faster than XLA on a CPU."""

import math
import sys
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from attn_unet_jax.runtime.cores import count_usable_cores
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.extras import import_extra

Shape = tuple[int, int, int]
Precision = Literal["float32", "bfloat16"]
EXTRA = "cpu"

_TELEMETRY = "openvino_telemetry"
HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoEngine:
  """Windows of one network, compiled for each of their shapes.

  Args:
    write_model: writes the network for windows of a shape as an ONNX model.
    precision: the type in which convolutions are computed.
    uses_statistics: whether mean and sd of the scan are inputs of the model.

  Raises:
    UserError: OpenVINO is not installed, or the processor does not have the type.
  """

  def __init__(
    self, write_model: Callable[[Shape], bytes], precision: Precision, *, uses_statistics: bool
  ):
    self._core = import_openvino("--engine=openvino").Core()
    if precision == "bfloat16" and "BF16" not in self._list_types():
      raise UserError(
        "--precision=bfloat16: this processor does not compute in it; leave the flag out"
      )
    self._write_model, self._uses_statistics = write_model, uses_statistics
    self._settings = {
      "INFERENCE_PRECISION_HINT": HINTS[precision],
      "INFERENCE_NUM_THREADS": count_usable_cores(),
      # All cores for one window: they come one at a time.
      "PERFORMANCE_HINT": "LATENCY",
    }
    self._compiled: dict[Shape, Any] = {}

  def prepare(self, shape: Shape) -> int:
    """Compiles the network for a window, if it is not yet; returns the bytes that it takes."""
    if shape not in self._compiled:
      model = self._core.read_model(self._write_model(shape))
      # Kernels are chosen for sizes that are known.
      model.reshape({"hu": [1, *shape]})
      self._compiled[shape] = self._core.compile_model(model, "CPU", self._settings)
    return measure_memory(self._compiled[shape].get_runtime_model())

  def predict(self, hu: np.ndarray, mean: Any, sd: Any) -> np.ndarray:
    """Returns probabilities, float32 `[X', Y', Z', K]`, of a window in HU `[X, Y, Z]`."""
    x, y, z = hu.shape
    if (x, y, z) not in self._compiled:
      self.prepare((x, y, z))
    given = [np.asarray(hu, np.float32)[None]]
    if self._uses_statistics:
      given += [np.asarray(mean, np.float32), np.asarray(sd, np.float32)]
    # A copy, since the next window is computed in the same memory.
    return np.array(self._compiled[x, y, z](given)[0][0], np.float32)

  def _list_types(self) -> list[str]:
    types: list[str] = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return types


def import_openvino(needed_by: str) -> Any:
  """Imports OpenVINO without what reports its use to its maker.

  Args:
    needed_by: the flag that needs it.

  Raises:
    UserError: it is not installed.
  """
  # Imported as it is it sends an event by network and leaves an identity in the home folder. It
  # takes a silent stub where that part of it is missing.
  before = sys.modules.get(_TELEMETRY)
  sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
  try:
    return import_extra("openvino", EXTRA, needed_by)
  finally:
    del sys.modules[_TELEMETRY]
    if before is not None:
      sys.modules[_TELEMETRY] = before


def measure_memory(model: Any) -> int:
  """Returns the most bytes that results take at a time which later operations need.

  Args:
    model: operations in the order in which they are computed, all shapes known.
  """
  operations = model.get_ordered_ops()
  place = {one.get_friendly_name(): index for index, one in enumerate(operations)}
  change = [0] * (len(operations) + 1)
  for index, operation in enumerate(operations):
    if not operation.inputs():  # a constant, or the input
      continue
    for output in operation.outputs():
      size = math.prod(output.get_shape()) * output.get_element_type().size
      readers = (one.get_node().get_friendly_name() for one in output.get_target_inputs())
      change[index] += size
      # Memory is free again after the last operation that reads it.
      change[max((place[name] for name in readers), default=index) + 1] -= size
  return int(max(np.cumsum(change)))
