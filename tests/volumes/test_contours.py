import numpy as np
import pytest
from scipy import ndimage

from attn_unet_jax.volumes.contours import trace_contours


def area(polygon):
  x, y = polygon.T
  return 0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))


def test_one_voxel_is_a_square_around_its_centre():
  mask = np.zeros((3, 4), bool)
  mask[1, 2] = True
  (polygon,) = trace_contours(mask)
  np.testing.assert_array_equal(polygon, [[0.5, 1.5], [1.5, 1.5], [1.5, 2.5], [0.5, 2.5]])


def test_a_straight_border_has_points_at_its_ends_alone():
  (polygon,) = trace_contours(np.ones((5, 2), bool))
  np.testing.assert_array_equal(polygon, [[-0.5, -0.5], [4.5, -0.5], [4.5, 1.5], [-0.5, 1.5]])


def test_a_hole_is_cut_in_by_a_channel_without_width():
  mask = np.ones((3, 3), bool)
  mask[1, 1] = False
  (polygon,) = trace_contours(mask)
  assert area(polygon) == 8
  # From the outer border to the hole, around it, and back on the same line.
  around = [[0.5, -0.5], [0.5, 1.5], [1.5, 1.5], [1.5, 0.5], [0.5, 0.5], [0.5, -0.5]]
  outer = [[2.5, -0.5], [2.5, 2.5], [-0.5, 2.5]]
  np.testing.assert_array_equal(polygon, [[-0.5, -0.5], *around, *outer])


def test_voxels_that_touch_at_a_corner_are_two_polygons():
  assert [area(one) for one in trace_contours(np.eye(2, dtype=bool))] == [1, 1]


def test_a_mask_without_voxels_has_no_contour():
  assert trace_contours(np.zeros((4, 4), bool)) == []


@pytest.mark.parametrize("seed", range(100))
def test_filled_polygons_are_the_mask_and_have_its_area(seed):
  """Of random masks, by a rasteriser of another library: one polygon for each connected part."""
  draw = pytest.importorskip("skimage.draw")
  rng = np.random.default_rng(seed)
  mask = rng.random(rng.integers(1, 16, 2)) < rng.uniform(0.2, 0.95)
  polygons = trace_contours(mask)
  assert len(polygons) == ndimage.label(mask)[1]
  filled = sum((draw.polygon2mask(mask.shape, one).astype(int) for one in polygons), 0 * mask)
  np.testing.assert_array_equal(filled, mask)
  assert sum(map(area, polygons)) == mask.sum()
