"""How much memory the prediction of a large scan takes beyond the scan: 512 x 512 x 600 at 1 mm.

python -m benchmarks.scan_memory --output=benchmarks/results/scan_memory.json

The network is that of pancreas_1mm with parameters of zero, in float32, which takes the most. Only
the first windows are computed: the peak does not depend on how many follow, and all take hours
on a CPU. Reading, judging and resampling the scan, its mask and the estimate of quality are as in
`predict`. The peak is that of the process, less what it held with the scan in memory.
"""

import resource
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from absl import flags

from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.experiment import load_experiment
from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.inference.quality import QualityModel, estimate_quality
from attn_unet_jax.inference.segment import make_mask, predict_scan
from attn_unet_jax.inference.sliding import SlidingWindow
from attn_unet_jax.runtime.process import run_command
from attn_unet_jax.training.state import abstract_state
from attn_unet_jax.volumes.judge import Judge
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.network import build_run_network
from benchmarks.drawn_scan import draw_scan
from benchmarks.result import keep, machine

_CONFIG = flags.DEFINE_string("config", "pancreas_1mm", "The recipe.")
_WINDOWS = flags.DEFINE_integer("windows", 2, "Windows that are computed.", lower_bound=2)
_SLICES = flags.DEFINE_integer("slices", 600, "Slices of the scan.", lower_bound=1)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.")


class _FirstWindows:
  """A compiled network that answers with the background once it has computed a few windows."""

  def __init__(self, window: Any, count: int):
    self.lower: Callable[..., Any] = window.lower
    self._window, self._left = window, count

  def __call__(self, variables: Any, hu: np.ndarray, *intensity: Any) -> Any:
    self._left -= 1
    if self._left >= 0:
      return self._window(variables, hu, *intensity)
    return np.broadcast_to(np.array([1, 0], np.float32), (*hu.shape, 2)).copy()


def measure_memory(config: RunConfig, scan: Volume, windows: int) -> dict[str, float]:
  """Returns the peak of a prediction, in GiB."""
  module = build_run_network(config, 2)
  shapes = abstract_state(config, module).variables
  variables = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  sliding = SlidingWindow(config, module, announce=True).use(variables)
  sliding.window = _FirstWindows(sliding.window, windows)  # type: ignore[assignment]
  held = psutil.Process().memory_info().rss
  Judge(frozenset(("hounsfield", "pose"))).judge_scan(scan, "a scan")
  found = predict_scan(scan, sliding, config)
  estimate_quality(found, {"pancreas": QualityModel()})
  make_mask(found, config)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  return {
    "scan_gib": scan.array.nbytes / 2**30,
    "peak_gib": peak / 2**30,
    "beyond_the_scan_gib": (peak - held) / 2**30,
  }


def main() -> None:
  """Measures one scan."""
  on = machine()
  config = resolve_draft(load_experiment(_CONFIG.value or ""), data=False)
  config = replace_keys(config, {"model.dtype": "float32"})
  scan = draw_scan(_SLICES.value or 1)
  found = measure_memory(config, scan, _WINDOWS.value or 2)
  keep({"machine": on, "shape": list(scan.shape), "config": _CONFIG.value, **found}, _OUTPUT.value)


if __name__ == "__main__":
  run_command(main)
