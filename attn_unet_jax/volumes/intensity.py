"""Measures a scan's intensities, which normalisation and augmentation work with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class IntensityStatistics(NamedTuple):
  """The mean and the population's standard deviation of an image, in its own unit (HU)."""

  mean: float
  sd: float


def measure_intensity(array: np.ndarray) -> IntensityStatistics:
  """Measures a whole image [X, Y, Z] of any numeric type, accumulating in float64."""
  # Two passes, since the mean of squares less the square of the mean cancels. Plane by plane, since
  # a float64 copy of a whole scan is large. Always in the order of Z, Y, X, so that the result does
  # not depend on how the array lies in memory.
  mean = sum(float(_to_float64(plane).sum()) for plane in array.T) / array.size
  squares = sum(float(np.square(_to_float64(plane) - mean).sum()) for plane in array.T)
  return IntensityStatistics(mean, float(np.sqrt(squares / array.size)))


def measure_quantiles(array: np.ndarray, count: int) -> np.ndarray:
  """Measures the quantiles of an integer image at evenly spaced levels.

  As in `numpy.quantile`, a level between two voxels of the sorted image is interpolated linearly.

  Args:
    array: the image [X, Y, Z].
    count: number of levels: 0, 1 / (count - 1), ..., 1.

  Returns:
    float32 [count].
  """
  # Counting is faster than sorting: an image has few values and many voxels.
  least = int(array.min())
  ends = np.cumsum(np.bincount(np.subtract(array, least, dtype=np.int32).ravel()))
  place = np.linspace(0, array.size - 1, count)
  below = np.floor(place)
  low, high = (np.searchsorted(ends, order, "right") for order in (below, np.ceil(place)))
  return (least + low + (place - below) * (high - low)).astype(np.float32)


def _to_float64(plane: np.ndarray) -> np.ndarray:
  # In C order, since NumPy adds in the order of memory.
  return plane.astype(np.float64, order="C")
