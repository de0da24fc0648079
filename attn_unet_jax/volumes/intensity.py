"""Intensity statistics of a case, which normalisation and augmentation work with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class IntensityStatistics(NamedTuple):
  """Mean and standard deviation (of the population) of an image, in its unit (HU)."""

  mean: float
  sd: float


def measure_intensity(array: np.ndarray) -> IntensityStatistics:
  """Measures a whole image [X, Y, Z] of any numeric type, accumulating in float64.

  Two passes, plane by plane: squares do not cancel, no float64 copy of the image is made, and the
  order of additions is fixed by the shape, so the memory layout does not change a bit.
  """
  mean = sum(float(_to_float64(plane).sum()) for plane in array.T) / array.size
  squares = sum(float(np.square(_to_float64(plane) - mean).sum()) for plane in array.T)
  return IntensityStatistics(mean, float(np.sqrt(squares / array.size)))


def measure_quantiles(array: np.ndarray, count: int) -> np.ndarray:
  """Values of an integer image [X, Y, Z] at the levels 0, 1 / (count - 1), ..., 1; float32.

  Linear between neighbours in the order of all voxels, as `numpy.quantile`; by counting, since an
  image has few values and many voxels.
  """
  least = int(array.min())
  ends = np.cumsum(np.bincount(np.subtract(array, least, dtype=np.int32).ravel()))
  place = np.linspace(0, array.size - 1, count)
  below = np.floor(place)
  low, high = (np.searchsorted(ends, order, "right") for order in (below, np.ceil(place)))
  return (least + low + (place - below) * (high - low)).astype(np.float32)


def _to_float64(plane: np.ndarray) -> np.ndarray:
  return plane.astype(np.float64, order="C")
