"""Surface distance against hand-computed values and the surface-distance package on real masks."""

import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import surface_distance
from scipy import ndimage

from attn_unet_jax.evaluation import surface

PAIRS = Path(__file__).parents[3] / "shared" / "data" / "mask_pairs"


def _box(shape, low, high):
  mask = np.zeros(shape, bool)
  mask[tuple(map(slice, low, high))] = True
  return mask


def test_two_voxels_by_hand():
  """Each voxel's surface is eight corners of 1/8 |(yz, xz, xy)|, at the cubes around it."""
  a, b = _box((9, 4, 4), (1, 1, 1), (2, 2, 2)), _box((9, 4, 4), (5, 1, 1), (6, 2, 2))
  # Cubes at x = 0.5 and 1.5 voxels, 4.5 and 5.5: the nearest lie 3 and 4 voxels away.
  assert surface.measure_directed_averages_mm(a, b, (2.0, 1.0, 0.5)) == pytest.approx((7.0, 7.0))
  assert surface.assd_mm(a, b, (2.0, 1.0, 0.5)) == pytest.approx(7.0)


def test_the_mean_is_of_the_two_averages_and_not_of_all_pieces():
  large, small = (
    _box((12, 12, 12), (1, 1, 1), (11, 11, 11)),
    _box((12, 12, 12), (5, 5, 5), (6, 6, 6)),
  )
  there, back = surface.measure_directed_averages_mm(large, small, (1, 1, 1))
  assert there > back + 0.5
  assert surface.assd_mm(large, small, (1, 1, 1)) == (there + back) / 2
  assert surface.measure_directed_averages_mm(small, large, (1, 1, 1)) == (back, there)


def test_equal_masks_and_empty_ones():
  mask, empty = _box((5, 5, 5), (0, 0, 0), (5, 3, 2)), np.zeros((5, 5, 5), bool)
  assert surface.assd_mm(mask, mask, (1, 1, 1)) == 0
  for pair in ((mask, empty), (empty, mask), (empty, empty)):
    assert math.isnan(surface.assd_mm(*pair, (1, 1, 1)))
  with pytest.raises(ValueError, match="differ"):
    surface.assd_mm(mask, mask[:4], (1, 1, 1))


def _assd_by_distance_maps(prediction, reference, spacing):
  """The convention of most papers, by erosion and distance maps over the whole grid."""
  borders = [mask & ~ndimage.binary_erosion(mask) for mask in (prediction, reference)]
  far = [ndimage.distance_transform_edt(~border, sampling=spacing) for border in borders]
  return (far[1][borders[0]].mean() + far[0][borders[1]].mean()) / 2


def test_between_border_voxels_by_hand_and_by_distance_maps():
  a, b = _box((9, 4, 4), (1, 1, 1), (2, 2, 2)), _box((9, 4, 4), (5, 1, 1), (6, 2, 2))
  assert surface.assd_voxels_mm(a, b, (2.0, 1.0, 0.5)) == pytest.approx(8.0)
  rng = np.random.default_rng(0)
  masks = [ndimage.gaussian_filter(rng.normal(size=(24, 20, 16)), 2) > 0.02 for _ in range(2)]
  spacing = (0.7, 0.7, 2.5)
  expected = _assd_by_distance_maps(*masks, spacing)
  assert surface.assd_voxels_mm(*masks, spacing) == pytest.approx(expected)
  assert surface.assd_mm(*masks, spacing) != pytest.approx(expected, rel=0.01)


def test_border_voxels_of_equal_masks_and_of_empty_ones():
  mask, empty = _box((5, 5, 5), (0, 0, 0), (5, 3, 2)), np.zeros((5, 5, 5), bool)
  assert surface.assd_voxels_mm(mask, mask, (1, 1, 1)) == 0
  for pair in ((mask, empty), (empty, mask), (empty, empty)):
    assert math.isnan(surface.assd_voxels_mm(*pair, (1, 1, 1)))
  with pytest.raises(ValueError, match="differ"):
    surface.assd_voxels_mm(mask, mask[:4], (1, 1, 1))


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


@pytest.mark.slow
@pytest.mark.skipif(not PAIRS.is_dir(), reason=f"the real mask pairs are not at {PAIRS}")
def test_real_masks_by_the_package():
  """Both directed averages, on every pair whose affines agree."""
  compared = 0
  for path in sorted((PAIRS / "reference").glob("*.nii.gz")):
    reference, prediction = nib.load(path), nib.load(PAIRS / "prediction" / path.name)
    if not np.allclose(reference.affine, prediction.affine, atol=1e-3):
      continue
    spacing = np.linalg.norm(reference.affine[:3, :3], axis=0)
    masks = [np.asarray(image.dataobj) > 0 for image in (prediction, reference)]
    theirs = surface_distance.compute_average_surface_distance(
      surface_distance.compute_surface_distances(*masks, spacing)
    )
    assert surface.measure_directed_averages_mm(*masks, spacing) == pytest.approx(theirs, abs=1e-6)
    compared += 1
  assert compared == 36
