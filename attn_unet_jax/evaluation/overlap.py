"""Measures the overlap of two label maps class by class, and summarises scores over cases.

The rule for empty masks: a ratio whose denominator is zero is 1 if prediction and reference are
both empty (the prediction is exactly right), and undefined (NaN) otherwise. Hence

| prediction | reference | DSC, IoU | precision | recall |
| --- | --- | --- | --- | --- |
| empty | empty | 1 | 1 | 1 |
| empty | not | 0 | undefined | 0 |
| not | empty | 0 | 0 | undefined |

Means leave out undefined scores, whose number is reported too; nothing else is left out.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

Scores = dict[str, dict[str, float]]


class VoxelCounts(NamedTuple):
  """The voxels of one class: in both masks, in the prediction only, in the reference only."""

  true_positive: int
  false_positive: int
  false_negative: int


def count_voxels(prediction: np.ndarray, reference: np.ndarray) -> VoxelCounts:
  """Counts the voxels of two boolean masks [X, Y, Z]; true negatives are not needed.

  Raises:
    ValueError: the masks have different shapes.
  """
  if prediction.shape != reference.shape:
    raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} differ")
  # NumPy may broadcast masks of different shapes, hence the check above.
  hit = int(np.count_nonzero(prediction & reference))
  predicted, referred = int(np.count_nonzero(prediction)), int(np.count_nonzero(reference))
  return VoxelCounts(hit, predicted - hit, referred - hit)


def dice_score(counts: VoxelCounts) -> float:
  """Returns the Dice similarity coefficient (DSC), 2 TP / (2 TP + FP + FN), in [0, 1]."""
  hit, extra, missed = counts
  return _divide_counts(2 * hit, 2 * hit + extra + missed, counts)


def iou_score(counts: VoxelCounts) -> float:
  """Returns the intersection over union (Jaccard index), TP / (TP + FP + FN), in [0, 1]."""
  return _divide_counts(counts.true_positive, sum(counts), counts)


def precision_score(counts: VoxelCounts) -> float:
  """Returns the fraction of the prediction that is right, TP / (TP + FP), in [0, 1]."""
  return _divide_counts(counts.true_positive, counts.true_positive + counts.false_positive, counts)


def recall_score(counts: VoxelCounts) -> float:
  """Returns the fraction of the reference that is found, TP / (TP + FN), in [0, 1]."""
  return _divide_counts(counts.true_positive, counts.true_positive + counts.false_negative, counts)


def score_case(
  prediction: np.ndarray,
  reference: np.ndarray,
  classes: Mapping[str, int],
  voxel_volume_ml: float,
  unlabelled: int | None = None,
) -> Scores:
  """Computes all overlap scores of one case.

  Args:
    prediction: label map [X, Y, Z].
    reference: label map [X, Y, Z] on the same grid.
    classes: label value by class name, for example `{"pancreas": 1}`.
    voxel_volume_ml: |determinant of the affine's 3x3 part| in mm^3, divided by 1000.
    unlabelled: value of the reference for unknown voxels, where nothing is counted.

  Returns:
    score by class and metric: `dsc`, `iou`, `precision`, `recall` (in [0, 1], or NaN by the rule
    above), `volume_ml` of the prediction and `reference_volume_ml`.

  Raises:
    ValueError: the label maps have different shapes.
  """
  if prediction.shape != reference.shape:
    raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} differ")
  # The prediction alone is masked: `unlabelled` is no class, so that the reference has none there.
  known = reference != unlabelled
  return {
    name: _score_counts(
      count_voxels((prediction == value) & known, reference == value), voxel_volume_ml
    )
    for name, value in classes.items()
  }


def summarise_scores(rows: Sequence[Scores]) -> dict[str, dict[str, dict[str, float]]]:
  """Computes mean and standard deviation over cases.

  Args:
    rows: the scores of each case by `score_case`, all with the same classes and metrics.

  Returns:
    by class and metric: `mean`, `sd` (of the sample: the divisor is n - 1), `n` (cases in the
    mean) and `undefined` (cases left out because their score is NaN). `mean` is NaN for n = 0,
    `sd` for n < 2.

  Raises:
    ValueError: no rows.
  """
  if not rows:
    raise ValueError("no cases to summarise")
  return {
    name: {metric: _measure_spread([row[name][metric] for row in rows]) for metric in metrics}
    for name, metrics in rows[0].items()
  }


def _score_counts(counts: VoxelCounts, voxel_volume_ml: float) -> dict[str, float]:
  hit, extra, missed = counts
  return {
    "dsc": dice_score(counts),
    "iou": iou_score(counts),
    "precision": precision_score(counts),
    "recall": recall_score(counts),
    "volume_ml": (hit + extra) * voxel_volume_ml,
    "reference_volume_ml": (hit + missed) * voxel_volume_ml,
  }


def _divide_counts(numerator: int, denominator: int, counts: VoxelCounts) -> float:
  if denominator:
    return numerator / denominator
  # The rule for empty masks; see above.
  return math.nan if any(counts) else 1.0


def _measure_spread(scores: Sequence[float]) -> dict[str, float]:
  defined = np.array([score for score in scores if not math.isnan(score)])
  n = defined.size
  return {
    "mean": float(defined.mean()) if n else math.nan,
    "sd": float(defined.std(ddof=1)) if n > 1 else math.nan,
    "n": n,
    "undefined": len(scores) - n,
  }
