"""What the probabilities say of a mask, against sums by hand."""

import tracemalloc

import numpy as np
import pytest

from attn_unet_jax.inference.quality import (
  FEATURES,
  QualityModel,
  average_models,
  estimate_quality,
  measure_features,
)
from attn_unet_jax.inference.segment import ScanProbabilities
from attn_unet_jax.volumes.volume import Grid

GRID = Grid((8, 8, 8), np.diag([10.0, 10, 10, 1]))  # a voxel is 1 ml


def _believe(p):
  values = np.stack([1 - p, p], -1).astype(np.float32)
  return ScanProbabilities(values, GRID, GRID, GRID, None)


def _cube(inside, outside=0.0):
  p = np.full((8, 8, 8), outside)
  p[2:5, 2:5, 2:5] = inside
  return _believe(p)


def test_a_certain_mask_expects_to_be_right():
  (found,) = measure_features(_cube(1.0))
  assert found["expected_dice"] == found["self_dice"] == found["mean_probability"] == 1
  assert found["shell_entropy"] == pytest.approx(0, abs=1e-9)
  assert found["log_volume"] == pytest.approx(np.log(28))
  assert found["components"] == 0
  assert tuple(found) == FEATURES


def test_doubt_is_counted_inside_and_outside():
  (found,) = measure_features(_cube(0.75, 0.25))
  total = 27 * 0.75 + 485 * 0.25
  assert found["expected_dice"] == pytest.approx(2 * 27 * 0.75 / (27 + total))
  assert found["self_dice"] == pytest.approx((27 * 0.75**2 + 485 * 0.25**2) / total)
  assert found["mean_probability"] == pytest.approx(0.75)
  # The same on both sides of the surface: H(1/4) = 2 - 3/4 log2 3.
  assert found["shell_entropy"] == pytest.approx(2 - 0.75 * np.log2(3))


def test_pieces_and_an_empty_mask():
  p = np.zeros((8, 8, 8))
  p[0, 0, 0] = p[4, 4, 4] = p[7, 7, 7] = 0.9
  assert measure_features(_believe(p))[0]["components"] == pytest.approx(np.log(3))
  assert set(measure_features(_believe(np.zeros((8, 8, 8))))[0].values()) == {0.0}
  assert measure_features(_believe(np.ones((8, 8, 8))))[0]["shell_entropy"] == pytest.approx(
    0, abs=1e-9
  )


def test_an_estimate_below_the_threshold_is_doubtful():
  found = estimate_quality(_cube(1.0), {"pancreas": QualityModel(intercept=-0.25, threshold=0.8)})
  assert (found["pancreas"].expected_dsc, found["pancreas"].doubtful) == (0.75, True)
  for threshold in (None, 0.7):
    (one,) = estimate_quality(_cube(1.0), {"a": QualityModel(threshold=threshold)}).values()
    assert (one.expected_dsc, one.doubtful) == (1.0, False)
  assert QualityModel(intercept=3.0).estimate(measure_features(_cube(1.0))[0]) == 1


def test_members_that_disagree_lower_the_estimate():
  models = {"pancreas": QualityModel(threshold=0.7)}
  for agreement, expected, doubtful in ((0.6, 0.6, True), (0.9, 0.9, False), (1.0, 1.0, False)):
    found = estimate_quality(_cube(1.0), models, [agreement])["pancreas"]
    assert (found.expected_dsc, found.doubtful) == (expected, doubtful)
  found = estimate_quality(_cube(1.0), {"pancreas": QualityModel(intercept=-0.5)}, [0.9])
  assert found["pancreas"].expected_dsc == 0.5


def test_the_mean_of_models_estimates_the_mean():
  one, other = QualityModel(intercept=-0.5, threshold=0.5), QualityModel(threshold=0.75)
  features = measure_features(_cube(0.9))[0]
  mean = average_models([one, other])
  assert mean.estimate(features) == pytest.approx(
    (one.estimate(features) + other.estimate(features)) / 2
  )
  assert mean.threshold == 0.625
  assert average_models([one, QualityModel()]).threshold is None


def test_measuring_takes_two_bytes_a_voxel():
  p = np.zeros((64, 64, 64))
  p[28:36, 28:36, 28:36] = 0.9
  found = _believe(p)
  tracemalloc.start()
  measure_features(found)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  # The classes and the mask of one, and what is done in the organ's box.
  assert peak < 3 * p.size
