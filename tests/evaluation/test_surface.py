"""Surface distances against hand-computed values and distance maps."""

import math

import numpy as np
import pytest
import surface_distance
from scipy import ndimage

from attn_unet_jax.evaluation import surface, surface_scores


def _box(shape, low, high):
  mask = np.zeros(shape, bool)
  mask[tuple(map(slice, low, high))] = True
  return mask


def _assd(measure, *pair):
  return surface_scores.assd_mm(measure(*pair))


def _directed(*pair):
  return tuple(map(surface_scores.average_directed_mm, surface.measure_by_area(*pair)))


def test_two_voxels_by_hand():
  """Each voxel's surface is eight corners of 1/8 |(yz, xz, xy)|, at the cubes around it."""
  a, b = _box((9, 4, 4), (1, 1, 1), (2, 2, 2)), _box((9, 4, 4), (5, 1, 1), (6, 2, 2))
  # Cubes at x = 0.5 and 1.5 voxels, 4.5 and 5.5: the nearest lie 3 and 4 voxels away.
  there, back = surface.measure_by_area(a, b, (2.0, 1.0, 0.5))
  assert there.mm.tolist() == back.mm.tolist() == [6.0] * 4 + [8.0] * 4
  assert there.weight == pytest.approx(np.full(8, math.sqrt(0.25 + 1 + 4) / 8))


@pytest.mark.parametrize("order", ["C", "F"])
def test_pieces_and_border_voxels_of_every_slab_are_listed_once(order):
  """A bar across many slabs, and the same bar along another axis: equal distances and areas."""
  bar, stray = _box((40, 6, 5), (2, 2, 2), (37, 4, 3)), _box((40, 6, 5), (39, 5, 4), (40, 6, 5))
  spacing = (0.5, 1.0, 3.0)
  for measure in (surface.measure_by_area, surface.measure_by_voxels):
    there, back = measure(*(np.asarray(m, order=order) for m in (bar | stray, bar)), spacing)
    turned = measure(*(np.ascontiguousarray(m.T) for m in (bar | stray, bar)), spacing[::-1])
    assert there.mm == pytest.approx(turned.there.mm)
    assert there.weight.sum() == pytest.approx(turned.there.weight.sum())
    assert (back.mm == 0).all()
  assert len(back.mm) == 35 * 2  # every voxel of a bar of 35 x 2 x 1
  assert len(there.mm) == 35 * 2 + 1


def test_the_mean_is_of_the_two_averages_and_not_of_all_pieces():
  large, small = (
    _box((12, 12, 12), (1, 1, 1), (11, 11, 11)),
    _box((12, 12, 12), (5, 5, 5), (6, 6, 6)),
  )
  there, back = _directed(large, small, (1, 1, 1))
  assert there > back + 0.5
  assert _assd(surface.measure_by_area, large, small, (1, 1, 1)) == (there + back) / 2
  assert _directed(small, large, (1, 1, 1)) == (back, there)


@pytest.mark.parametrize("measure", [surface.measure_by_area, surface.measure_by_voxels])
def test_equal_masks_and_empty_ones(measure):
  mask, empty = _box((5, 5, 5), (0, 0, 0), (5, 3, 2)), np.zeros((5, 5, 5), bool)
  assert _assd(measure, mask, mask, (1, 1, 1)) == 0
  for pair in ((mask, empty), (empty, mask), (empty, empty)):
    assert math.isnan(_assd(measure, *pair, (1, 1, 1)))
  with pytest.raises(ValueError, match="differ"):
    measure(mask, mask[:4], (1, 1, 1))


def _assd_by_distance_maps(prediction, reference, spacing):
  """The convention of most papers, by erosion and distance maps over the whole grid."""
  borders = [mask & ~ndimage.binary_erosion(mask) for mask in (prediction, reference)]
  far = [ndimage.distance_transform_edt(~border, sampling=spacing) for border in borders]
  return (far[1][borders[0]].mean() + far[0][borders[1]].mean()) / 2


def test_between_border_voxels_by_hand_and_by_distance_maps():
  a, b = _box((9, 4, 4), (1, 1, 1), (2, 2, 2)), _box((9, 4, 4), (5, 1, 1), (6, 2, 2))
  assert _assd(surface.measure_by_voxels, a, b, (2.0, 1.0, 0.5)) == pytest.approx(8.0)
  rng = np.random.default_rng(0)
  masks = [ndimage.gaussian_filter(rng.normal(size=(24, 20, 16)), 2) > 0.02 for _ in range(2)]
  spacing = (0.7, 0.7, 2.5)
  expected = _assd_by_distance_maps(*masks, spacing)
  assert _assd(surface.measure_by_voxels, *masks, spacing) == pytest.approx(expected)
  assert _assd(surface.measure_by_area, *masks, spacing) != pytest.approx(expected, rel=0.01)


def test_a_distance_does_not_depend_on_where_the_organ_lies():
  """5 steps of 0.4 mm are 2 mm at every place: 9 times 0.4 less 4 times 0.4 is less than that."""
  whole = _box((20, 4, 4), (1, 1, 1), (2, 2, 2))
  for first in range(14):
    a, b = np.roll(whole, first, axis=0), np.roll(whole, first + 5, axis=0)
    there, _ = surface.measure_by_voxels(a, b, (0.4, 1.0, 1.0))
    assert there.mm.tolist() == [2.0]


def test_all_cubes_by_the_package():
  spacing = (0.7, 1.1, 1.9)
  kernel = surface_distance.lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL
  theirs = surface_distance.lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
  ours = surface._measure_areas(spacing)
  corners = np.ndindex(2, 2, 2)
  weights = [int(kernel[corner]) for corner in corners]
  for code in range(256):
    their_code = sum(weight for bit, weight in enumerate(weights) if code >> bit & 1)
    assert ours[code] == pytest.approx(theirs[their_code], abs=1e-12), code
