import math

import numpy as np
import pytest

from attn_unet_jax.volumes.box import (
  Box,
  bounding_box,
  bounding_slices,
  box_from_slices,
  crop_volume,
  paste_probabilities,
  share_inside,
  share_left_out,
)
from attn_unet_jax.volumes.resample import working_grid
from attn_unet_jax.volumes.volume import Grid, Volume

GRID = Grid((10, 8, 7), np.diag([2.0, 1.0, 3.0, 1.0]))
SCAN = Grid((20, 20, 10), np.diag([2.0, 2.0, 2.0, 1.0]))


def _list_ends(where):
  return [(part.start, part.stop) for part in where]


def test_millimetres_by_hand():
  box = box_from_slices((slice(2, 5), slice(0, 8), slice(6, 7)), GRID)
  assert box == Box((-6.0, -4.0, 7.5), (0.0, 4.0, 10.5))
  assert _list_ends(box.voxel_slices(GRID)) == [(2, 5), (0, 8), (6, 7)]


def test_every_box_of_voxels_comes_back():
  grid = Grid((23, 19, 31), np.diag([0.7813, 0.9063, 1.3, 1.0]))
  rng = np.random.default_rng(0)
  for _ in range(300):
    ends = [sorted(rng.choice(n + 1, 2, replace=False).tolist()) for n in grid.shape]
    where = tuple(slice(a, b) for a, b in ends)
    assert box_from_slices(where, grid).voxel_slices(grid) == where
    assert box_from_slices(where, grid).centre_slices(grid) == where


def test_on_a_finer_grid_it_is_the_same_place():
  fine = working_grid(GRID, 0.5)
  box = box_from_slices((slice(2, 5), slice(0, 8), slice(6, 7)), GRID)
  assert _list_ends(box.voxel_slices(fine)) == [(8, 20), (0, 16), (36, 42)]


@pytest.mark.parametrize(
  ("voxels", "expected"),
  [((2, 5), (1, 7)), ((0, 2), (0, 6)), ((9, 10), (4, 10)), ((1, 9), (1, 9))],
)
def test_grows_to_an_extent_inside_the_grid(voxels, expected):
  box = box_from_slices((slice(*voxels), slice(0, 8), slice(3, 4)), GRID)
  x, y, z = _list_ends(box.voxel_slices(GRID, (6, 20, 1)))
  assert (x, y, z) == (expected, (0, 8), (3, 4))


def test_a_box_outside_is_refused():
  with pytest.raises(ValueError, match="axis of 10"):
    Box((50.0, 0.0, 0.0), (60.0, 1.0, 1.0)).voxel_slices(GRID)


def test_parts_of_voxels_are_touched_but_only_centres_lie_inside():
  box = Box((-6.9, -4.0, -10.5), (-4.9, 4.0, 10.5))
  assert _list_ends(box.voxel_slices(GRID))[0] == (1, 3)
  assert _list_ends(box.centre_slices(GRID))[0] == (2, 3)


def test_around_a_mask():
  mask = np.zeros(GRID.shape, bool)
  assert bounding_box(mask, GRID) is None
  mask[3, 2, 4] = mask[6, 5, 4] = True
  box = bounding_box(mask, GRID)
  assert _list_ends(box.voxel_slices(GRID)) == [(3, 7), (2, 6), (4, 5)]
  assert box.add_margin(2.0) == Box((-6.0, -4.0, -0.5), (6.0, 4.0, 6.5))
  assert box.union_with(Box((0.0, 0.0, 0.0), (9.0, 1.0, 1.0))).high == (9.0, 2.0, 4.5)
  assert box.union_with(None) == box


def test_cut_and_paste():
  volume = Volume(np.arange(560).reshape(GRID.shape), GRID.affine)
  where = (slice(2, 5), slice(1, 8), slice(6, 7))
  part = crop_volume(volume, where)
  np.testing.assert_array_equal(part.array, volume.array[where])
  np.testing.assert_array_equal(part.affine[:3, 3], [4, 1, 18])
  whole = paste_probabilities(np.full((3, 7, 1, 2), 0.5, np.float32), where, GRID.shape)
  inside = np.zeros(GRID.shape, bool)
  inside[where] = True
  assert (whole[inside] == 0.5).all()
  assert (whole[~inside] == (1, 0)).all()


def test_recall_by_hand():
  label = np.zeros(SCAN.shape, np.uint8)
  label[5:9, 5, 5] = 1
  box = box_from_slices((slice(6, 20), slice(0, 20), slice(0, 10)), SCAN)
  assert share_inside(box, Volume(label, SCAN.affine)) == 0.75
  assert math.isnan(share_inside(box, Volume(0 * label, SCAN.affine)))


def test_recall_on_another_grid_of_the_same_scan():
  """At half the spacing each voxel becomes eight, and the share stays."""
  label = np.zeros(SCAN.shape, np.uint8)
  label[5:9, 5, 5] = 1
  fine = Volume(label.repeat(2, 0).repeat(2, 1).repeat(2, 2), np.diag([1.0, 1.0, 1.0, 1.0]))
  assert (
    share_inside(box_from_slices((slice(6, 20), slice(0, 20), slice(0, 10)), SCAN), fine) == 0.75
  )


def test_volume_reduction_by_hand():
  assert share_left_out(
    box_from_slices((slice(0, 10), slice(5, 15), slice(0, 5)), SCAN), SCAN
  ) == pytest.approx(1 - 1 / 8)
  beyond = Box((-100.0, -100.0, -100.0), (0.0, 100.0, 100.0))  # what lies outside does not count
  assert share_left_out(beyond, SCAN) == pytest.approx(0.5)


def test_bounding_slices_hold_the_mask_and_nothing_beyond():
  rng = np.random.default_rng(0)
  for dtype in (bool, np.uint8):
    mask = np.zeros((9, 7, 8), dtype)
    for _ in range(4):
      mask[tuple(rng.integers(2, n) for n in mask.shape)] = 1
      places = np.argwhere(mask)
      expected = list(zip(places.min(0).tolist(), (places.max(0) + 1).tolist(), strict=True))
      assert _list_ends(bounding_slices(mask)) == expected


def test_an_empty_mask_has_no_bounding_slices():
  assert bounding_slices(np.zeros((3, 4, 5), bool)) is None
