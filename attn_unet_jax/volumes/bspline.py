"""Weights of cubic B-splines, of which smooth random fields are made."""

import numpy as np


def cubic_bspline_weights(places: np.ndarray, knots: np.ndarray) -> np.ndarray:
  """Returns the value of each knot's uniform cubic B-spline at each place.

      B(d) = 2/3 - d^2 + |d|^3 / 2 for |d| < 1, (2 - |d|)^3 / 6 for 1 <= |d| < 2, else 0

  Args:
    places: [N], in units of the distance between knots.
    knots: [M], the splines' centres; one apart.

  Returns:
    float64 [N, M]; a row sums to 1 where its place has two knots on each side.
  """
  distance = np.abs(places[:, None] - knots[None, :])
  near = 2 / 3 - distance**2 + distance**3 / 2
  far = np.clip(2 - distance, 0, None) ** 3 / 6
  weights: np.ndarray = np.where(distance < 1, near, far)
  return weights
