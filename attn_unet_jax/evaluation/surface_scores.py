"""Scores of two surfaces, computed from the distances that `surface` measures.

Sums over the elements of a surface are weighted, by area or by one. Where a mask is empty there is
no distance, and averages and Hausdorff distances are undefined. The normalised surface dice follows
the rule for empty masks, as the DSC does: a missed organ has 0.
"""

import math

import numpy as np

from attn_unet_jax.evaluation.options import EmptyRule
from attn_unet_jax.evaluation.overlap import has_overlap_score
from attn_unet_jax.evaluation.surface import DirectedDistances, SurfaceDistances


def average_directed_mm(distances: DirectedDistances) -> float:
  """Returns the weighted mean of the distances from one surface to another; NaN if undefined."""
  if not _has_distance(distances):
    return math.nan
  return float(np.average(distances.mm, weights=distances.weight))


def assd_mm(distances: SurfaceDistances) -> float:
  """Returns the average symmetric surface distance: the mean of the two directed averages."""
  return (average_directed_mm(distances.there) + average_directed_mm(distances.back)) / 2


def hausdorff_mm(distances: SurfaceDistances, percent: float = 100) -> float:
  """Returns the Hausdorff distance, or that of a percentile: 95 is HD95.

    max over both directions of min {d : weight within d >= percent of all weight}

  The percentile of each direction is taken first, and the larger one returned (Nikolov et al. 2018,
  "robust" Hausdorff distance). Other programs take one percentile of both directions together.
  """
  # Either both are defined or none is, so that `max` meets no single NaN.
  return max(_find_percentile(distances.there, percent), _find_percentile(distances.back, percent))


def surface_dice(
  distances: SurfaceDistances, tolerance_mm: float, empty: EmptyRule = "reference"
) -> float:
  """Returns the normalised surface dice (NSD), in [0, 1] or NaN by the rule for empty masks.

    (weight of the prediction within the tolerance of the reference + weight of the reference within
    it of the prediction) / weight of both        (Nikolov et al. 2018, "surface DSC")

  A distance equal to the tolerance is within it.
  """
  directions = distances.there, distances.back
  predicted, referred = (len(direction.mm) > 0 for direction in directions)
  if not has_overlap_score(predicted=predicted, referred=referred, empty=empty):
    return math.nan
  if not (predicted or referred):
    return 1.0
  near = sum(float(one.weight[one.mm <= tolerance_mm].sum()) for one in directions)
  return near / sum(float(one.weight.sum()) for one in directions)


def _find_percentile(distances: DirectedDistances, percent: float) -> float:
  if not _has_distance(distances):
    return math.nan
  # The distances are sorted: this is the weight within each of them.
  share = np.cumsum(distances.weight) / distances.weight.sum()
  # By rounding, the last share can fall short of 1.
  at = min(int(np.searchsorted(share, percent / 100)), len(share) - 1)
  return float(distances.mm[at])


def _has_distance(distances: DirectedDistances) -> bool:
  # The last is the longest: it is infinite where any is.
  return bool(len(distances.mm)) and math.isfinite(distances.mm[-1])
