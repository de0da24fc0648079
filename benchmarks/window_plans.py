"""What other windows cost and what they change: voxels, CPU time, memory and DSC of one run.

  python -m benchmarks.window_plans --workdir=runs/demo
  python -m benchmarks.window_plans --workdir=runs/demo --images=IMAGES --labels=LABELS

Without images the test cases of the run. CPU time and voxels hardly depend on what else the machine
does; wall time is not measured.
"""

import math
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import app, flags

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.evaluation.overlap import score_case
from attn_unet_jax.evaluation.scoring import score_cases
from attn_unet_jax.inference.segment import segment_scan
from attn_unet_jax.inference.sliding import SlidingWindow
from attn_unet_jax.volumes.nifti import read_label, read_nifti
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.load_run import BestCheckpoint, load_best
from benchmarks.mask_agreement import compare_masks
from benchmarks.result import keep, machine

WORKDIR = flags.DEFINE_string("workdir", None, "A run.", required=True)
IMAGES = flags.DEFINE_string("images", None, "Folder of NIfTI scans; none: the run's test cases.")
LABELS = flags.DEFINE_string("labels", None, "Folder of their masks; what is not 0 is the organ.")
EVERY = flags.DEFINE_integer("every", 1, "Of the scans, every so many-th.")
OUTPUT = flags.DEFINE_string("output", None, "JSON file of the result.")
SETTINGS = flags.DEFINE_list(
  "settings", ["patch", "plan", "large"], "inference.window, or patch:OVERLAP, or XxYxZ."
)


class Counter:
  """A sliding window that counts what its network computes."""

  def __init__(self, system: SlidingWindow):
    self._system, self._window = system, system.window
    self.lower = system.window.lower
    self.computed = self.voxels = self.calls = 0
    self.seconds = 0.0
    self.windows: set[str] = set()
    system.window = self  # type: ignore[assignment]

  def __call__(self, variables: Any, hu: np.ndarray, *intensity: float) -> Any:
    """Computes one window."""
    self.computed, self.calls = self.computed + hu.size, self.calls + 1
    self.windows.add("x".join(map(str, hu.shape)))
    return self._window(variables, hu, *intensity)

  def predict(self, volume: Volume) -> np.ndarray:
    """Predicts a volume, and adds up its CPU time once all is compiled."""
    self.voxels += math.prod(volume.shape)
    self._system._compile(self._system._planner.plan_scan(volume, self._system._compile)[1].window)
    began = time.process_time()
    found = self._system.predict(volume)
    self.seconds += time.process_time() - began
    return found


def configure(config: RunConfig, setting: str) -> RunConfig:
  """The config with the windows that a setting names."""
  if setting in ("plan", "large", "patch"):
    return replace_keys(config, {"inference.window": setting})
  patch: dict[str, Any] = {"inference.window": "patch"}
  if setting.startswith("patch:"):
    return replace_keys(config, {**patch, "inference.overlap": float(setting[6:])})
  size = tuple(int(n) for n in setting.split("x"))
  return replace_keys(config, {**patch, "inference.patch": size})


def measure(found: BestCheckpoint, setting: str) -> tuple[dict[str, Any], list[np.ndarray]]:
  """The figures of one setting, and the masks where they are of scans that are not the run's."""
  config = configure(found.config, setting)
  counter = Counter(SlidingWindow(config, found.module).use(found.variables))
  masks: list[np.ndarray] = []
  if IMAGES.value and LABELS.value:
    scores = []
    for path in sorted(Path(IMAGES.value).glob("*.nii*"))[:: EVERY.value]:
      mask = segment_scan(read_nifti(path), counter, config).mask.array
      truth = (read_label(Path(LABELS.value) / path.name).array > 0).astype(np.uint8)
      masks.append(mask)
      scores.append(score_case(mask, truth, {"organ": 1}, 1.0)["organ"]["dsc"])
  else:
    fold = open_fold(config.data)
    rows = score_cases(fold, fold.split.test[:: EVERY.value], counter, config)
    scores = [one["dsc"] for of_case in rows.values() for one in of_case.values()]
  return {
    "dsc": round(float(np.mean(scores)), 4),
    "dsc_of_cases": [round(float(score), 4) for score in scores],
    "voxels_computed_per_voxel": round(counter.computed / counter.voxels, 2),
    "windows": counter.calls,
    "shapes": sorted(counter.windows),
    "cpu_seconds": round(counter.seconds, 1),
    # Of the process so far: it never falls, so the settings go from small windows to large ones.
    "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
  }, masks


def main(_: list[str]) -> None:
  """Measures every setting and keeps the result."""
  began, found = machine(), load_best(Path(WORKDIR.value))
  result: dict[str, Any] = {"machine": began, "network": found.config.model.name}
  result["patch"] = list(found.config.data.patch)
  first: list[np.ndarray] = []
  for setting in SETTINGS.value:
    result[setting], masks = measure(found, setting)
    first = first or masks
    if masks:
      result[setting] |= compare_masks(masks, first)
  keep(result, OUTPUT.value)


if __name__ == "__main__":
  app.run(main)
