import numpy as np
import pytest

from attn_unet_jax.drawing.colours import choose_colour
from attn_unet_jax.drawing.options import SliceStyle
from attn_unet_jax.drawing.planes import (
  AXIAL,
  CORONAL,
  SAGITTAL,
  Place,
  cut_plane,
  draw_slice,
  find_centre,
  find_largest_slices,
  find_outline,
  find_region,
)
from attn_unet_jax.volumes import Volume

STYLE = SliceStyle(outline_px=1)


@pytest.mark.parametrize(
  ("axis", "corner"),
  [
    (AXIAL, (5, 6, 0)),  # right front
    (CORONAL, (5, 0, 7)),  # right, head
    (SAGITTAL, (0, 6, 7)),  # front, head
  ],
)
def test_right_front_and_head_are_at_the_left_and_above(axis, corner):
  array = np.zeros((6, 7, 8))
  array[corner] = 1
  plane = cut_plane(array, Place(axis, corner[axis]))
  assert plane.shape == tuple(n for i, n in enumerate(array.shape) if i != axis)[::-1]
  assert np.argwhere(plane).tolist() == [[0, 0]]


def test_an_outline_lies_on_the_edge_of_its_class_and_nowhere_else():
  classes = np.zeros((20, 20, 3), np.uint8)
  classes[4:10, 5:15, 1] = 2
  image = Volume(np.full(classes.shape, 240, np.int16), np.eye(4))
  picture = draw_slice(image, classes, (1, 1, 1), Place(AXIAL, 1), (20, 20), STYLE)
  drawn = (picture == choose_colour(2)).all(axis=-1)
  expected = find_outline(cut_plane(classes, Place(AXIAL, 1)) == 2, 1)
  np.testing.assert_array_equal(drawn, expected)
  assert drawn.sum() == 2 * 6 + 2 * 8
  assert (picture[~drawn] == 255).all()


def test_every_class_has_a_colour_of_its_own_and_unlabelled_voxels_none():
  values = range(1, 17)
  classes = np.zeros((18, 3, 1), np.uint8)
  classes[:17, 1, 0] = [*values, 255]
  picture = draw_slice(None, classes, (1, 1, 1), Place(AXIAL, 0), (3, 18), STYLE)
  row = [tuple(pixel) for pixel in picture[1, ::-1].tolist()]
  assert row == [choose_colour(value) for value in values] + [(0, 0, 0)] * 2
  assert len(set(row[:16])) == 16


@pytest.mark.parametrize(("spacing", "size"), [((1, 1, 5), (100, 40)), ((1, 1, 1), (40, 80))])
def test_proportions_are_those_of_the_millimetres(spacing, size):
  image = Volume(np.zeros((40, 30, 20), np.int16), np.eye(4))
  picture = draw_slice(image, None, spacing, Place(CORONAL, 3), (100, 80), STYLE)
  assert picture.shape[:2] == size


def test_the_window_is_black_below_and_white_above():
  hu = np.array([-2000, -160, 40, 240, 3000], np.int16).reshape(5, 1, 1)
  picture = draw_slice(Volume(hu, np.eye(4)), None, (1, 1, 1), Place(AXIAL, 0), (1, 5), STYLE)
  assert picture[0, ::-1, 0].tolist() == [0, 0, 127, 255, 255]


def test_centre_region_and_largest_slices():
  mask = np.zeros((30, 20, 40), bool)
  mask[10:13, 4:7, 8:33] = True
  mask[10:20, 4:14, 20:22] = True
  assert find_centre(mask[..., :1]) == (15, 10, 0)  # empty: the middle
  x, y, z = find_centre(mask)
  assert (x in range(11, 15), y in range(5, 9), z in range(19, 22)) == (True, True, True)
  chosen = find_largest_slices(mask, 3)
  assert 20 in chosen
  assert chosen == sorted(chosen, reverse=True)
  assert min(-np.diff(chosen)) >= 4
  assert find_largest_slices(mask[..., :1], 3) == []
  assert find_region(mask, (1, 1, 2), 6) == (slice(4, 26), slice(0, 20), slice(5, 36))
  assert mask[..., :1][find_region(mask[..., :1], (1, 1, 1), 5)].shape == (30, 20, 1)
