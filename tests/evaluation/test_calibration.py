"""Calibration against values computed by hand."""

import math

import numpy as np
import pytest

from attn_unet_jax.evaluation.calibration import calibration_error, measure_calibration
from attn_unet_jax.inference.segment import ScanProbabilities
from attn_unet_jax.volumes.volume import Volume


def test_an_error_by_hand():
  """Two voxels of 0.3, of which one is of the class; one of 0.7, which is; one of 1, which is not.

  |0.6 - 1| + |0.7 - 1| + |1 - 0| over 4 voxels.
  """
  probabilities, is_class = np.array([0.3, 0.3, 0.7, 1.0]), np.array([True, False, True, False])
  assert calibration_error(probabilities, is_class) == pytest.approx((0.4 + 0.3 + 1) / 4)
  assert math.isnan(calibration_error(probabilities[:0], is_class[:0]))


def test_probabilities_that_are_shares_have_no_error_and_sure_ones_have():
  rng = np.random.default_rng(0)
  true = rng.random(200_000)
  is_class = rng.random(true.size) < true
  assert calibration_error(true, is_class) < 0.01
  assert calibration_error((true > 0.5).astype(float), is_class) == pytest.approx(0.25, abs=0.01)


def _scan(share, shape=(60, 6, 6)):
  """A scan of 2 mm voxels: class 1 has a probability in one voxel of the middle, 0 elsewhere."""
  values = np.zeros((*shape, 2), np.float32)
  values[30, 3, 3, 1] = share
  values[..., 0] = 1 - values[..., 1]
  truth = np.zeros(shape, np.uint8)
  truth[30, 3, 3] = 1
  grid = Volume(truth, np.diag([2.0, 2.0, 2.0, 1.0])).grid
  return ScanProbabilities(values, grid, grid, grid, None), truth


def _measure(found, prediction, truth, **rules):
  maps = (Volume(array, found.native.affine) for array in (prediction, truth))
  return measure_calibration(found, *maps, {"a": 1}, **rules)["a"]


def test_voxels_within_10_mm_of_the_class_count():
  """5 voxels of 2 mm on each side along X, and all that there is along the other axes."""
  found, truth = _scan(0.75)
  assert _measure(found, truth, truth) == pytest.approx(0.25 / (11 * 6 * 6))
  unknown = truth.copy()
  unknown[25:30] = 255
  assert _measure(found, truth, unknown) == pytest.approx(0.25 / (6 * 6 * 6))


def test_a_case_has_an_error_where_it_has_a_dsc():
  found, truth = _scan(0.75)
  nothing = 0 * truth
  assert _measure(found, nothing, truth) > 0
  assert math.isnan(_measure(found, truth, nothing))
  assert _measure(found, truth, nothing, empty="either") == pytest.approx(0.75 / (11 * 6 * 6))
  assert math.isnan(_measure(found, nothing, nothing, empty="one"))
