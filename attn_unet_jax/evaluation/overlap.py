"""Measures the overlap of two label maps class by class.

A ratio whose denominator is zero is undefined (NaN). Beyond that a rule decides about empty masks:

| prediction | reference | DSC, IoU by `reference`, `either`, `one` | precision | recall |
| --- | --- | --- | --- | --- |
| empty | empty | undefined, undefined, 1 | undefined; 1 by `one` | undefined; 1 by `one` |
| empty | not | 0, 0, 0 | undefined | 0 |
| not | empty | undefined, 0, 0 | 0 | undefined |

By `reference`, the default, a class that occurs in no reference has no DSC, whatever is predicted.
The error of the volume is defined where the DSC is. Which of these scores suits which question:
Maier-Hein, Reinke et al. 2024, "Metrics reloaded".
Means leave out undefined scores; `summary` counts them, the cases that are missed altogether, and
the false alarms.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from attn_unet_jax.evaluation.options import EmptyRule

Scores = dict[str, dict[str, float]]


class VoxelCounts(NamedTuple):
  """The voxels of one class: in both masks, in the prediction only, in the reference only."""

  true_positive: int
  false_positive: int
  false_negative: int


def count_voxels(prediction: np.ndarray, reference: np.ndarray) -> VoxelCounts:
  """Counts the voxels of two boolean masks [X, Y, Z].

  Raises:
    ValueError: the masks have different shapes.
  """
  if prediction.shape != reference.shape:
    raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} differ")
  # NumPy may broadcast masks of different shapes, hence the check above.
  hit = int(np.count_nonzero(prediction & reference))
  predicted, referred = int(np.count_nonzero(prediction)), int(np.count_nonzero(reference))
  return VoxelCounts(hit, predicted - hit, referred - hit)


def dice_score(counts: VoxelCounts, empty: EmptyRule = "reference") -> float:
  """Returns the Dice similarity coefficient (DSC), 2 TP / (2 TP + FP + FN), in [0, 1] or NaN."""
  hit, extra, missed = counts
  return _divide_overlap(2 * hit, 2 * hit + extra + missed, counts, empty)


def iou_score(counts: VoxelCounts, empty: EmptyRule = "reference") -> float:
  """Returns the intersection over union (Jaccard), TP / (TP + FP + FN), in [0, 1] or NaN."""
  return _divide_overlap(counts.true_positive, sum(counts), counts, empty)


def precision_score(counts: VoxelCounts, empty: EmptyRule = "reference") -> float:
  """Returns the fraction of the prediction that is right, TP / (TP + FP), in [0, 1] or NaN."""
  hit, extra, _ = counts
  return _divide_counts(hit, hit + extra, counts, empty)


def recall_score(counts: VoxelCounts, empty: EmptyRule = "reference") -> float:
  """Returns the fraction of the reference that is found, TP / (TP + FN), in [0, 1] or NaN."""
  hit, _, missed = counts
  return _divide_counts(hit, hit + missed, counts, empty)


def specificity_score(counts: VoxelCounts, known: int) -> float:
  """Returns the fraction of the voxels outside the reference that the prediction leaves alone.

    TN / (TN + FP), in [0, 1]; NaN where the reference fills all of the scan

  It depends on the field of view: the more there is beside the organ, the nearer to 1 it is.

  Args:
    counts: the voxels of the class.
    known: the number of voxels that the reference knows, of whatever class.
  """
  hit, extra, missed = counts
  negatives = known - hit - missed
  return (negatives - extra) / negatives if negatives else math.nan


def has_overlap_score(*, predicted: bool, referred: bool, empty: EmptyRule) -> bool:
  """Returns whether a case has a DSC of a class by a rule for empty masks.

  Args:
    predicted: whether the prediction has the class.
    referred: whether the reference has it.
    empty: the rule.
  """
  # By `reference`, a false alarm is no overlap of 0: precision, volume and its number tell it.
  return referred or empty == "one" or (empty == "either" and predicted)


def score_case(
  prediction: np.ndarray,
  reference: np.ndarray,
  classes: Mapping[str, int],
  voxel_volume_ml: float,
  unlabelled: int | None = None,
  empty: EmptyRule = "reference",
) -> Scores:
  """Computes all overlap scores of one case.

  Args:
    prediction: label map [X, Y, Z].
    reference: label map [X, Y, Z] on the same grid.
    classes: label value by class name, for example `{"pancreas": 1}`.
    voxel_volume_ml: |determinant of the affine's 3x3 part| in mm^3, divided by 1000.
    unlabelled: value of the reference for unknown voxels, where nothing is counted.
    empty: the rule for empty masks.

  Returns:
    score by class and metric: `dsc`, `iou`, `precision`, `recall`, `specificity` (in [0, 1], or NaN
    by the rules above), `volume_ml` of the prediction, `reference_volume_ml`, their difference
    `volume_error_ml` (below 0 where the prediction is too small) and `volume_error_abs_ml`.

  Raises:
    ValueError: the label maps have different shapes.
  """
  if prediction.shape != reference.shape:
    raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} differ")
  # The prediction alone is masked: `unlabelled` is no class, so that the reference has none there.
  # With None, which no value equals, all are known.
  known = reference != unlabelled
  num_known = int(np.count_nonzero(known))
  counts = {
    name: count_voxels((prediction == value) & known, reference == value)
    for name, value in classes.items()
  }
  return {
    name: _score_counts(found, num_known, voxel_volume_ml, empty) for name, found in counts.items()
  }


class MeanScore(NamedTuple):
  """A mean, NaN for n = 0, over n of the cases; a case counts once for each class."""

  mean: float
  n: int
  cases: int


def average_dsc(rows: Sequence[Scores]) -> MeanScore:
  """Averages the DSC of each class over the cases that have one, and then over the classes.

  A class without a DSC in any case does not count.

  Raises:
    ValueError: no rows.
  """
  if not rows:
    raise ValueError("no cases to average")
  scores = np.array([[metrics["dsc"] for metrics in row.values()] for row in rows])
  defined = ~np.isnan(scores)
  # Class by class first: otherwise an organ that most cases have would outweigh a rare one.
  means = [float(of[has].mean()) for of, has in zip(scores.T, defined.T, strict=True) if has.any()]
  mean = sum(means) / len(means) if means else math.nan
  return MeanScore(mean, int(defined.sum()), scores.size)


def _score_counts(
  counts: VoxelCounts, known: int, voxel_volume_ml: float, empty: EmptyRule
) -> dict[str, float]:
  hit, extra, missed = counts
  error_ml = (extra - missed) * voxel_volume_ml if _has_score(counts, empty) else math.nan
  return {
    "dsc": dice_score(counts, empty),
    "iou": iou_score(counts, empty),
    "precision": precision_score(counts, empty),
    "recall": recall_score(counts, empty),
    "specificity": specificity_score(counts, known),
    "volume_ml": (hit + extra) * voxel_volume_ml,
    "reference_volume_ml": (hit + missed) * voxel_volume_ml,
    "volume_error_ml": error_ml,
    "volume_error_abs_ml": abs(error_ml),
  }


def _has_score(counts: VoxelCounts, empty: EmptyRule) -> bool:
  hit, extra, missed = counts
  return has_overlap_score(predicted=hit + extra > 0, referred=hit + missed > 0, empty=empty)


def _divide_overlap(
  numerator: int, denominator: int, counts: VoxelCounts, empty: EmptyRule
) -> float:
  if not _has_score(counts, empty):
    return math.nan
  return _divide_counts(numerator, denominator, counts, empty)


def _divide_counts(
  numerator: int, denominator: int, counts: VoxelCounts, empty: EmptyRule
) -> float:
  if denominator:
    return numerator / denominator
  # `one` is the rule of version 0.1.0: two empty masks agree.
  return 1.0 if empty == "one" and not any(counts) else math.nan
