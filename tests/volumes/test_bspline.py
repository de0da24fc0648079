import numpy as np
from scipy.interpolate import BSpline

from attn_unet_jax.volumes.bspline import cubic_bspline_weights


def test_the_weights_are_scipys():
  places, knots = np.linspace(-1, 5, 97), np.arange(-1, 6)
  weights = cubic_bspline_weights(places, knots)
  for knot, column in zip(knots, weights.T, strict=True):
    spline = BSpline.basis_element(knot + np.arange(-2.0, 3.0), extrapolate=False)
    np.testing.assert_allclose(column, np.nan_to_num(spline(places)), atol=1e-12)


def test_rows_with_two_knots_on_each_side_sum_to_one():
  weights = cubic_bspline_weights(np.linspace(0, 4, 41), np.arange(-1, 6))
  np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
