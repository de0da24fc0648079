"""How hard the phantoms are for methods that do not look at anatomy.

  python -m tfds_pancreas.build --dataset=phantom_ct/demo --data_dir=data
  python benchmarks/phantom_difficulty.py --data_dir=data

Three methods, fitted on the training cases and scored on the test cases (mean DSC per case):
  window: voxels of the body within the best interval of HU;
  place: a fixed mask, the mean of the training labels over a threshold, where a place is a fraction
    of the field of view, or of the body's bounding box (the better of the two is reported);
  forest: a random forest on intensities smoothed by Gaussians of 0 to 12 mm and both places.
Thresholds of the last two are chosen on the validation cases. Writes a JSON file; takes 2 minutes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import flags
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier

from attn_unet_jax.runtime.process import run_command
from benchmarks.result import keep
from tfds_pancreas.records import Record, open_records

LIMITS = {"window": 0.25, "place": 0.45, "forest": 0.55}
HU = np.arange(-200, 401, 4)  # edges of the windows tried
GRID = 48  # cells per axis of the fixed mask
SIGMAS = (1.5, 3.0, 6.0, 12.0)  # mm
THRESHOLDS = np.linspace(0.05, 0.95, 37)

_DATASET = flags.DEFINE_string("dataset", "phantom_ct/demo", "The records to measure.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the records are.", required=True)
_OUTPUT = flags.DEFINE_string(
  "output", "benchmarks/results/phantom_difficulty.json", "JSON file to write."
)

Case = dict[str, np.ndarray]


def main() -> None:
  """Measures, prints and writes."""
  records = open_records(_DATASET.value, _DATA_DIR.value)
  value = records.labels["pancreas"]
  cases = {
    name: [measure_case(record, value) for record in split]
    for name, split in records.splits.items()
  }
  scores = {
    "window": window_score(cases),
    "place": place_score(cases),
    "forest": forest_score(cases),
  }
  result = {
    "dataset": _DATASET.value,
    "cases": {name: len(split) for name, split in cases.items()},
    "mean_test_dsc": scores,
    "limits": LIMITS,
    "below_limits": all(scores[name] < limit for name, limit in LIMITS.items()),
  }
  keep(result, _OUTPUT.value)


def measure_case(record: Record, value: int) -> Case:
  """What the methods see of a case: every second voxel of the body along each axis.

  Returns:
    truth bool [M], features float32 [M, F] (intensity, smoothed intensities), places float32
    [2, M, 3] in fractions of the field of view and of the body's box.
  """
  image, label = record["image"].astype(np.float32), record["label"]
  spacing = np.diag(record["affine"])[:3]
  keep = np.zeros(label.shape, bool)
  keep[::2, ::2, ::2] = True
  keep &= label > 0
  smooth = [ndimage.gaussian_filter(image, sigma / spacing, truncate=3)[keep] for sigma in SIGMAS]
  index = np.argwhere(keep)
  low, high = index.min(0), index.max(0)
  places = np.stack([index / label.shape, (index - low) / (high - low + 1)])
  return {
    "truth": label[keep] == value,
    "features": np.stack([image[keep], *smooth], -1),
    "places": places.astype(np.float32),
  }


def window_score(cases: dict[str, list[Case]]) -> float:
  """Mean test DSC of the interval of HU that has the highest DSC on the pooled training voxels."""
  hu = np.concatenate([case["features"][:, 0] for case in cases["train"]])
  truth = np.concatenate([case["truth"] for case in cases["train"]])
  body = np.append(0, np.cumsum(np.histogram(hu, HU)[0]))
  organ = np.append(0, np.cumsum(np.histogram(hu[truth], HU)[0]))
  overlap = organ[None, :] - organ[:, None]
  dice = 2 * overlap / (np.triu(body[None, :] - body[:, None]) + truth.sum())
  low, high = np.unravel_index(np.argmax(np.triu(dice)), dice.shape)
  return _mean_dice(
    cases["test"],
    lambda case: (case["features"][:, 0] >= HU[low]) & (case["features"][:, 0] < HU[high]),
  )


def place_score(cases: dict[str, list[Case]]) -> float:
  """Mean test DSC of the better of the two fixed masks."""
  return max(_score_fixed_mask(cases, kind) for kind in (0, 1))


def _score_fixed_mask(cases: dict[str, list[Case]], kind: int) -> float:
  counts, hits = np.zeros((2, GRID**3))
  for case in cases["train"]:
    cell = _cell(case, kind)
    counts += np.bincount(cell, minlength=GRID**3)
    hits += np.bincount(cell[case["truth"]], minlength=GRID**3)
  # Smoothing lets cells that few training voxels fell into borrow from their neighbours.
  blur = [ndimage.gaussian_filter(n.reshape((GRID,) * 3), 0.7).ravel() for n in (hits, counts)]
  share = blur[0] / np.maximum(blur[1], 1e-6)
  return _score_threshold(cases, lambda case: share[_cell(case, kind)])


def _cell(case: Case, kind: int) -> np.ndarray:
  return np.ravel_multi_index((case["places"][kind] * GRID).astype(int).T, (GRID,) * 3)


def forest_score(cases: dict[str, list[Case]]) -> float:
  """Mean test DSC of the random forest."""
  rng = np.random.default_rng(0)
  chosen = [_sample(rng, case) for case in cases["train"]]
  inputs = np.concatenate(
    [_inputs(case)[c] for case, c in zip(cases["train"], chosen, strict=True)]
  )
  truth = np.concatenate([case["truth"][c] for case, c in zip(cases["train"], chosen, strict=True)])
  forest = RandomForestClassifier(60, min_samples_leaf=5, n_jobs=-1, random_state=0)
  forest.fit(inputs, truth)
  return _score_threshold(cases, lambda case: forest.predict_proba(_inputs(case))[:, 1])


def _sample(rng: np.random.Generator, case: Case) -> np.ndarray:
  """Indices of up to 400 voxels of the pancreas and 3000 of the rest of the body."""
  inside, outside = np.flatnonzero(case["truth"]), np.flatnonzero(~case["truth"])
  return np.append(rng.permutation(inside)[:400], rng.permutation(outside)[:3000])


def _inputs(case: Case) -> np.ndarray:
  return np.concatenate([case["features"], *case["places"]], -1)


def _score_threshold(
  cases: dict[str, list[Case]], probability: Callable[[Case], np.ndarray]
) -> float:
  found = [probability(case) for case in cases["validation"]]
  scores = [
    np.mean(
      [_dice(p > t, case["truth"]) for p, case in zip(found, cases["validation"], strict=True)]
    )
    for t in THRESHOLDS
  ]
  best = THRESHOLDS[int(np.argmax(scores))]
  return _mean_dice(cases["test"], lambda case: probability(case) > best)


def _mean_dice(cases: Sequence[Case], predict: Callable[[Case], Any]) -> float:
  return round(float(np.mean([_dice(predict(case), case["truth"]) for case in cases])), 4)


def _dice(prediction: np.ndarray, truth: np.ndarray) -> float:
  return 2 * float((prediction & truth).sum()) / float(prediction.sum() + truth.sum())


if __name__ == "__main__":
  run_command(main)
