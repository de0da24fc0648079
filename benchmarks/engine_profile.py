"""Where OpenVINO's time goes in one window of Attention U-Net, by kind of operation.

  python -m benchmarks.engine_profile --output=benchmarks/results/engine_profile.json

The medians of several windows, in float32 and in bfloat16 where the processor has it. OpenVINO
counts the time of each of its own operations, which are not those of the network one by one: a
normalisation is a part of the convolution before it.
"""

import collections
import statistics
from typing import Any

import numpy as np
from absl import flags

from attn_unet_jax.inference.onnx_window import draw_windows, write_onnx_window
from attn_unet_jax.inference.openvino_engine import HINTS, import_openvino
from attn_unet_jax.runtime.process import run_command
from benchmarks.drawn_network import draw_system
from benchmarks.page import table
from benchmarks.result import keep, machine

_PATCH = flags.DEFINE_integer("patch", 64, "Edge of the cubic window, in voxels.", lower_bound=16)
_REPEATS = flags.DEFINE_integer("repeats", 9, "Windows of each.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")


def main() -> None:
  """Measures each precision, and prints a table."""
  edge = _PATCH.value or 64
  window = (edge, edge, edge)
  name = "this benchmark"
  openvino = import_openvino(name)
  system = draw_system("attention_unet", window)
  onnx = write_onnx_window([system], window, uses_statistics=False, extra="cpu", needed_by=name)
  core = openvino.Core()
  present = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
  precisions = [name for name in HINTS if name == "float32" or "BF16" in present]
  hu = draw_windows(window, 1)[0]
  result: dict[str, Any] = {"machine": machine(), "openvino": openvino.__version__}
  for precision in precisions:
    given = {"INFERENCE_PRECISION_HINT": HINTS[precision], "PERF_COUNT": True}
    compiled = core.compile_model(core.read_model(onnx), "CPU", given)
    result[precision] = time_operations(compiled, hu, _REPEATS.value or 1)
  keep(result, _OUTPUT.value)
  print(write_table({precision: result[precision] for precision in precisions}))


def time_operations(compiled: Any, hu: np.ndarray, repeats: int) -> dict[str, float]:
  """Returns the milliseconds of each kind of operation in a window, most first."""
  request = compiled.create_infer_request()
  request.infer([hu[None]])  # OpenVINO chooses kernels in its first
  found = collections.defaultdict[str, list[float]](list)
  for _ in range(repeats):
    request.infer([hu[None]])
    sums = collections.Counter[str]()
    for one in request.profiling_info:
      sums[one.node_type] += one.real_time.total_seconds() * 1e3
    for kind, milliseconds in sums.items():
      found[kind].append(milliseconds)
  medians = {kind: round(statistics.median(some), 2) for kind, some in found.items()}
  return dict(sorted(medians.items(), key=lambda item: -item[1]))


def write_table(found: dict[str, dict[str, float]]) -> str:
  """Writes a row for each kind that takes a hundredth of its window at least."""
  totals = {name: sum(kinds.values()) for name, kinds in found.items()}
  shown = {
    kind: milliseconds
    for name, kinds in found.items()
    for kind, milliseconds in kinds.items()
    if milliseconds > totals[name] / 100
  }
  ranked = sorted(shown, key=lambda kind: -shown[kind])
  rows = [[kind, *(f"{kinds.get(kind, 0):.1f}" for kinds in found.values())] for kind in ranked]
  rows.append(["all", *(f"{total:.1f}" for total in totals.values())])
  return table(["ms of a window", *found], rows)


if __name__ == "__main__":
  run_command(main)
