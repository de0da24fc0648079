"""The features of a superpixel for the forest: statistics of three maps, position and size."""

from collections.abc import Sequence

import numpy as np

PERCENTILES = (20, 30, 40, 50, 60, 70, 80)
COUNT = 3 * (2 + len(PERCENTILES)) + 3 + 1


def measure_features(
  segments: np.ndarray, maps: Sequence[np.ndarray], spacing_mm: float
) -> np.ndarray:
  """Measures all superpixels at once.

  Args:
    segments: number of the superpixel of each voxel, 0 to S - 1, [X, Y, Z]; none may be missing.
    maps: CT in HU within its window, probabilities of interior and boundary, each [X, Y, Z].
    spacing_mm: spacing of the isotropic grid.

  Returns:
    float32 [S, 31]: of each map mean, sd (of the population) and the percentiles 20, 30 .. 80
    (linear between order statistics); the centroid as a fraction of the box along X, Y and Z; the
    area in mm^2.
  """
  flat = segments.ravel()
  size = np.bincount(flat)
  columns = [
    column for values in maps for column in _segment_statistics(flat, size, values.ravel())
  ]
  for axis, n in enumerate(segments.shape):
    shape = [n if a == axis else 1 for a in range(3)]
    place = np.broadcast_to(((np.arange(n) + 0.5) / n).reshape(shape), segments.shape)
    # As a fraction of the box, since boxes of patients differ in size.
    columns.append(np.bincount(flat, place.ravel()) / size)
  columns.append(size * spacing_mm**2)
  return np.stack(columns, -1).astype(np.float32)


def _segment_statistics(flat: np.ndarray, size: np.ndarray, values: np.ndarray) -> list[np.ndarray]:
  """Computes mean, sd and percentiles of the values of each superpixel."""
  # In float64, since sums over many voxels lose digits in float32.
  values = values.astype(np.float64)
  mean = np.bincount(flat, values) / size
  sd = np.sqrt(np.bincount(flat, (values - mean[flat]) ** 2) / size)
  # Sorted by superpixel, then by value, so that each superpixel is a run of ordered values.
  ordered = values[np.lexsort((values, flat))]
  first = np.cumsum(size) - size
  return [mean, sd, *(_segment_percentile(ordered, first, size, q) for q in PERCENTILES)]


def _segment_percentile(
  ordered: np.ndarray, first: np.ndarray, size: np.ndarray, percent: int
) -> np.ndarray:
  """Computes a percentile of each run of `size` ordered values that begins at `first`."""
  place = (size - 1) * (percent / 100)
  below = np.floor(place).astype(np.intp)
  above = np.minimum(below + 1, size - 1)
  low, high = ordered[first + below], ordered[first + above]
  result: np.ndarray = low + (place - below) * (high - low)
  return result
