"""Intensity statistics of a case, which normalisation on the accelerator works with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Statistics(NamedTuple):
  """Mean and standard deviation (of the population) of an image, in its unit (HU)."""

  mean: float
  sd: float


def statistics(array: np.ndarray) -> Statistics:
  """Measures a whole image [X, Y, Z] of any numeric type, accumulating in float64.

  Two passes, plane by plane: squares do not cancel, no float64 copy of the image is made, and the
  order of additions is fixed by the shape, so the memory layout does not change a bit.
  """
  mean = sum(float(_plane(plane).sum()) for plane in array.T) / array.size
  squares = sum(float(np.square(_plane(plane) - mean).sum()) for plane in array.T)
  return Statistics(mean, float(np.sqrt(squares / array.size)))


def _plane(plane: np.ndarray) -> np.ndarray:
  return plane.astype(np.float64, order="C")
