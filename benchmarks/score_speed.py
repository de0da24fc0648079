"""How long one core takes to score a scan: 512 x 512 x 300 voxels of 0.8 x 0.8 x 1 mm, one class.

python -m benchmarks.score_speed --output=benchmarks/results/score_speed.json

Organs are ellipsoids with rough surfaces, prediction and reference of a DSC near 0.88. Times are
CPU seconds of the process, the least of some repeats, so that other work on the machine matters
less.
"""

import time

import numpy as np
from absl import app, flags
from scipy import ndimage

from attn_unet_jax.evaluation.scoring import score_prediction
from attn_unet_jax.volumes.volume import Volume
from benchmarks.result import keep, machine

_REPEATS = flags.DEFINE_integer("repeats", 3, "times that each is scored")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write")
_SHAPE, _SPACING_MM = (512, 512, 300), (0.8, 0.8, 1.0)
_ORGANS = {
  "pancreas": {"radii": (50, 22, 20)},
  "pancreas, stray voxels in two corners": {"radii": (50, 22, 20), "strays": True},
  "liver": {"radii": (110, 90, 70)},
}


def draw_organ(radii: tuple[int, int, int], seed: int) -> np.ndarray:
  """Draws an ellipsoid with a rough surface into the middle of the scan, uint8, X fastest."""
  mask = np.zeros(_SHAPE, np.uint8, order="F")
  centre = np.array(_SHAPE) // 2 + (2 * seed, -seed, seed)
  box = [(int(c - 1.4 * r), int(c + 1.4 * r)) for c, r in zip(centre, radii, strict=True)]
  where = tuple(slice(*ends) for ends in box)
  places = np.moveaxis(np.array(np.mgrid[where]), 0, -1)
  noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=places.shape[:3]), 4)
  level = (((places - centre) / radii) ** 2).sum(axis=-1) + 0.15 * noise / noise.std()
  mask[where] = level < 1
  return mask


def measure_seconds(radii: tuple[int, int, int], repeats: int, *, strays: bool = False) -> float:
  """Returns the least CPU seconds of scoring one prediction."""
  reference, prediction = (draw_organ(radii, seed) for seed in range(2))
  if strays:
    prediction[3, 3, 3] = prediction[-4, -4, -4] = 1
  truth = Volume(reference, np.diag([*_SPACING_MM, 1.0]))
  seconds = []
  for _ in range(repeats):
    start = time.process_time()
    score_prediction(prediction, truth, {"organ": 1})
    seconds.append(time.process_time() - start)
  return min(seconds)


def main(_: list[str]) -> None:
  """Measures every organ."""
  on = machine()
  found = {
    name: round(measure_seconds(repeats=_REPEATS.value, **organ), 2)  # type: ignore[arg-type]
    for name, organ in _ORGANS.items()
  }
  keep({"machine": on, "cpu_seconds": found}, _OUTPUT.value)


if __name__ == "__main__":
  app.run(main)
