import numpy as np
import pytest
from scipy import ndimage

from attn_unet_jax.volumes.components import (
  fill_plane_holes,
  largest_component,
  largest_components,
)


def make_mask(*voxels, shape=(5, 4, 3)):
  mask = np.zeros(shape, bool)
  for voxel in voxels:
    mask[voxel] = True
  return mask


def test_the_largest_of_three_is_kept():
  rod = [(0, 0, 0), (1, 0, 0)]
  corner = [(3, 1, 0), (3, 2, 0), (3, 2, 1)]
  speck = [(0, 3, 2)]
  found = largest_component(make_mask(*rod, *corner, *speck))
  np.testing.assert_array_equal(found, make_mask(*corner))


@pytest.mark.parametrize("other", [(1, 1, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1)])
def test_edges_and_corners_do_not_join(other):
  assert largest_component(make_mask((0, 0, 0), other)).sum() == 1


def test_of_equal_ones_the_first_is_kept_in_any_memory_order():
  mask = make_mask((1, 3, 2), (4, 0, 0))
  for array in (mask, np.asfortranarray(mask)):
    np.testing.assert_array_equal(largest_component(array), make_mask((1, 3, 2)))


def test_every_class_keeps_its_own():
  """Another class between two parts does not connect them, nor does its bounding box hide one."""
  labels = np.zeros((7, 3, 3), np.uint8)
  labels[0:2, 1, 1] = 1
  labels[2, 1, 1] = 3
  labels[3:6, 1, 1] = 1
  labels[6, 0, 0] = 3
  labels[6, 0, 1] = 3
  before, expected = labels.copy(), labels.copy()
  expected[0:2, 1, 1] = 0
  expected[2, 1, 1] = 0
  np.testing.assert_array_equal(largest_components(labels), expected)
  np.testing.assert_array_equal(labels, before)
  assert largest_components(labels.T.copy().T).dtype == np.uint8


def test_by_weights_a_smaller_component_may_be_the_largest():
  mask = np.zeros((7, 3, 3), bool)
  mask[0:3, 1, 1] = mask[5:7, 1, 1] = True
  weights = np.where(np.arange(7) < 4, 1.0, 2.0)[:, None, None] * np.ones(mask.shape)
  expected = mask & (weights == 2.0)
  np.testing.assert_array_equal(largest_component(mask, weights), expected)
  labels = mask.astype(np.uint8)
  kept = largest_components(labels, (1,), lambda value, where: value * weights[where])
  np.testing.assert_array_equal(kept, expected)


def test_nothing_stays_nothing():
  assert not largest_component(np.zeros((2, 2, 2), bool)).any()
  assert not largest_components(np.zeros((2, 2, 2), np.uint8)).any()


@pytest.mark.parametrize("share", [0.3, 0.55, 0.8])
def test_holes_of_planes_are_filled_as_scipy_fills_each(share):
  mask = np.random.default_rng(0).random((21, 17, 6)) < share
  mask[..., 0], mask[..., 1] = True, False
  planes = [ndimage.binary_fill_holes(mask[..., z]) for z in range(mask.shape[2])]
  np.testing.assert_array_equal(fill_plane_holes(mask), np.stack(planes, axis=2))
