"""Measures calibration: whether, of the voxels with probability 0.7, 70 % are of the class."""

import math
from collections.abc import Mapping

import numpy as np

from attn_unet_jax.evaluation.options import EmptyRule
from attn_unet_jax.evaluation.overlap import has_overlap_score
from attn_unet_jax.inference.segment import ScanProbabilities
from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.volumes.box import Slices, bounding_slices
from attn_unet_jax.volumes.resample import interpolate_box
from attn_unet_jax.volumes.shear import straighten_labels
from attn_unet_jax.volumes.volume import Grid, Volume

_BINS = 15
_MARGIN_MM = 10.0


def calibration_error(probabilities: np.ndarray, is_class: np.ndarray) -> float:
  """Returns the expected calibration error (ECE) of one class, in [0, 1].

    sum over bins of (voxels of the bin / all voxels) |mean probability - share of the class|

  over 15 bins of equal width (Guo et al. 2017, here for the probability of one class). NaN if there
  is no voxel.

  Args:
    probabilities: of the class [N], in [0, 1].
    is_class: whether the voxel is of the class [N], bool.
  """
  if not probabilities.size:
    return math.nan
  # A probability of 1 belongs to the last bin.
  bins = np.minimum((probabilities * _BINS).astype(np.intp), _BINS - 1)
  expected, found = (
    np.bincount(bins, weights=values, minlength=_BINS) for values in (probabilities, is_class)
  )
  # The number of a bin's voxels cancels: sums stand for its mean and its share.
  return float(np.abs(expected - found).sum() / probabilities.size)


def measure_calibration(
  found: ScanProbabilities,
  prediction: Volume,
  reference: Volume,
  classes: Mapping[str, int],
  empty: EmptyRule = "reference",
) -> dict[str, float]:
  """Measures the ECE of each class around it, on the native grid.

  The voxels are those of the smallest box that holds the class in prediction and reference, with a
  margin of 10 mm: far away every network is sure and right, which would hide all errors. Unlabelled
  voxels do not count. A case has an ECE where it has a DSC, and either mask has the class.

  Args:
    found: the probabilities, as the network gave them.
    prediction: class indices on the native grid.
    reference: class indices on the native grid.
    classes: index by class name.
    empty: the rule for empty masks.
  """
  predicted = straighten_labels(prediction).array
  # Where no slice lies nothing is known, so that these voxels do not count.
  truth = straighten_labels(reference, outside=UNLABELLED).array
  errors = {}
  for name, value in classes.items():
    masks = predicted == value, truth == value
    where = _find_surroundings(masks[0] | masks[1], found.canonical)
    has = [bool(mask.any()) for mask in masks]
    if where is None or not has_overlap_score(predicted=has[0], referred=has[1], empty=empty):
      errors[name] = math.nan
      continue
    values = interpolate_box(found.values[..., value], found.grid, found.canonical, where)
    known = truth[where] != UNLABELLED
    errors[name] = calibration_error(values[known], masks[1][where][known])
  return errors


def _find_surroundings(mask: np.ndarray, grid: Grid) -> Slices | None:
  """Finds the smallest box around a mask, with the margin; None for an empty mask."""
  where = bounding_slices(mask)
  if where is None:
    return None
  margins = [math.ceil(_MARGIN_MM / spacing) for spacing in grid.spacing]
  x, y, z = (
    slice(max(0, side.start - margin), side.stop + margin)  # NumPy cuts an end beyond the scan
    for side, margin in zip(where, margins, strict=True)
  )
  return x, y, z
