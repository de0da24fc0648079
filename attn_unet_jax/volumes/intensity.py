"""Intensity statistics of a case, which normalisation on the accelerator works with."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Statistics(NamedTuple):
  """Mean, standard deviation (of the population) and minimum of an image, in its unit (HU)."""

  mean: float
  sd: float
  minimum: float


def statistics(array: np.ndarray) -> Statistics:
  """Measures a whole image [X, Y, Z] of any numeric type, accumulating in float64.

  Two passes, plane by plane: the squares of 12-bit values do not cancel, and no float64 copy of
  the image is made.
  """
  mean = sum(float(np.sum(plane, dtype=np.float64)) for plane in array) / array.size
  squares = sum(float(np.sum(np.square(plane - np.float64(mean)))) for plane in array)
  return Statistics(mean, float(np.sqrt(squares / array.size)), float(array.min()))
