"""Paintings of label maps: decided by seed, map and number; right in place and density."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from attn_unet_jax.volumes.nifti import read_nifti
from attn_unet_jax.volumes.nifti_folder import list_nifti_files
from attn_unet_jax.volumes.volume import Volume
from tests.conftest import SHARED
from tests.painted_maps import KEPT, draw_partial_map
from tfds_pancreas.abdomen.organs import ALL_ORGANS, ORGANS
from tfds_pancreas.painted_ct import painting
from tfds_pancreas.painted_ct.label_maps import read_map
from tfds_pancreas.painted_ct.map_deformation import (
  DeformationSpread,
  draw_source_indices,
  sample_labels,
)
from tfds_pancreas.painted_ct.organ_names import read_organs_of_values
from tfds_pancreas.painted_ct.painting import DRAWN_MM, PaintingRecipe, draw_view, paint_map

RECIPE = PaintingRecipe(pixel_mm=(6.0, 9.0), slice_mm=(6.0, 9.0))
STILL = DeformationSpread(turn_deg=0, stretch=0, bend_mm=0)
GIVEN = [ORGANS[organ] for organ in KEPT]
# Mean HU of a tissue: 3 sds around the phases' means, at the recipe's spread; fat lies in between
# the lobules of the pancreas.
RANGES = {"liver": (0, 165), "spleen": (10, 205), "kidney_left": (-10, 270), "pancreas": (-60, 185),
          "fat": (-130, -70), "lung": (-950, -620), "muscle": (5, 105)}  # fmt: skip


def make_generator(map_id, number, seed=0):
  return np.random.default_rng((seed, painting._hash_id(map_id), number))


@pytest.fixture(scope="module")
def paintings():
  return [paint_map(draw_partial_map(1), "a", number, RECIPE) for number in range(3)]


def is_same_painting(a, b):
  return all(
    x.shape == y.shape and (x.array == y.array).all() and (x.affine == y.affine).all()
    for x, y in zip(a, b, strict=True)
  )


def test_a_painting_is_decided_by_seed_map_and_number_alone(paintings):
  assert is_same_painting(
    paint_map(draw_partial_map(1), "a", 2, RECIPE), paintings[2]
  )  # whatever was painted before
  others = [("b", 2, RECIPE), ("a", 3, RECIPE), ("a", 2, replace(RECIPE, seed=1))]
  assert not any(
    is_same_painting(paint_map(draw_partial_map(1), *other), paintings[2]) for other in others
  )


def test_paintings_differ_in_grid_labels_and_image(paintings):
  assert len({image.spacing for image, _ in paintings}) == 3
  assert len({label.shape for _, label in paintings}) == 3
  means = [image.array[label.array == ORGANS["pancreas"]].mean() for image, label in paintings]
  assert np.std(means) > 3


def test_image_and_label_are_records_on_one_grid_within_the_drawn_spacing(paintings):
  for image, label in paintings:
    assert (image.array.dtype, label.array.dtype) == (np.int16, np.uint8)
    np.testing.assert_array_equal(image.affine, label.affine)
    assert image.orientation == "RAS"
    assert image.spacing[0] == image.spacing[1]
    assert all(6 <= step <= 9 for step in image.spacing)


def test_labels_lie_where_the_map_has_them_after_the_deformation(paintings):
  source = draw_partial_map(1)
  for number, (_, label) in enumerate(paintings):
    rng = make_generator("a", number)
    view = draw_view(rng, source, RECIPE)
    found = np.argwhere(source.array == ORGANS["pancreas"]).mean(0)
    centre = source.affine[:3, :3] @ found + source.affine[:3, 3]
    seen = sample_labels(
      source.array, draw_source_indices(rng, RECIPE.deformation, source.grid, view, centre)
    )
    assert (seen == ORGANS["pancreas"]).sum() > 20
    np.testing.assert_array_equal(label.array[seen > 0], seen[seen > 0])
    assert not np.isin(label.array[seen == 0], GIVEN).any()


@pytest.mark.parametrize("affine", [np.diag([8.0, 8, 8, 1]), None])
def test_without_deformation_a_voxel_has_the_label_at_its_place_in_mm(affine):
  turn = np.array([[0.998, -0.05, 0.03], [0.05, 0.998, 0.02], [-0.03, -0.02, 0.999]])
  oblique = np.eye(4)
  oblique[:3, :3], oblique[:3, 3] = 8 * turn / np.linalg.norm(turn, axis=0), (-70, 33, 1200)
  source = Volume(draw_partial_map(1).array, oblique if affine is None else affine)
  _, label = paint_map(source, "a", 0, replace(RECIPE, deformation=STILL))
  voxels = np.argwhere(np.ones(label.shape, bool))
  places = voxels @ label.affine[:3, :3].T + label.affine[:3, 3]
  inverse = np.linalg.inv(source.affine)
  index = np.floor(places @ inverse[:3, :3].T + inverse[:3, 3] + 0.5).astype(int)
  inside = ((index >= 0) & (index < source.shape)).all(1)
  expected = source.array[tuple(index[inside].T)]
  painted = label.array[tuple(voxels[inside].T)]
  given = np.where(np.isin(painted, GIVEN), painted, 0)
  # Places half-way between two voxels may round either way.
  assert (given == expected).mean() > 0.999


def test_a_deformation_keeps_its_centre_and_scales_volumes_as_it_says():
  source = draw_partial_map(1)
  centre = source.grid.centre_mm
  rng = np.random.default_rng(5)
  indices = draw_source_indices(
    rng, DeformationSpread(4.0, 0.1, 0.0), source.grid, source.grid, centre
  )
  middle = tuple(np.array(source.shape) // 2)
  there = indices[(slice(None), *middle)] - middle
  assert np.abs(there).max() < 0.2  # the centre lies half a voxel from this one
  rng = np.random.default_rng(5)
  rng.normal(0, 4.0, 3)
  factors = np.clip(rng.normal(1, 0.1, 3), 0.8, 1.25)
  steps = np.array([np.gradient(axis) for axis in indices])[..., 5, 5, 5]
  assert np.linalg.det(steps) == pytest.approx(np.prod(factors), rel=1e-3)


def test_a_bend_moves_by_its_sd():
  source = draw_partial_map(1)
  still, bent = (
    draw_source_indices(
      np.random.default_rng(3), how, source.grid, source.grid, source.grid.centre_mm
    )
    for how in (STILL, DeformationSpread(0, 0, 4.0))
  )
  assert np.std(8 * (bent - still)) == pytest.approx(4.0, rel=0.35)
  assert np.abs(np.diff(bent - still, axis=1)).max() < 0.5  # smooth: nothing folds


def test_organs_have_the_density_of_their_tissue(paintings):
  for image, label in paintings:
    for organ, (low, high) in RANGES.items():
      mask = label.array == ALL_ORGANS[organ]
      core = ndimage.binary_erosion(mask)
      if core.sum() > 8:
        assert low < np.median(image.array[core]) < high, organ
    air = ndimage.binary_erosion(label.array == 0, iterations=2)
    assert abs(image.array[air].mean() + 1000) < 5


def test_the_pancreas_is_always_in_the_view():
  whole = (draw_partial_map(1).array == ORGANS["pancreas"]).sum() * draw_partial_map(
    1
  ).voxel_volume_ml
  recipe = replace(RECIPE, deformation=STILL)
  for number in range(6):
    view = draw_view(make_generator("a", number), draw_partial_map(1), recipe)
    rng = np.random.default_rng(0)
    indices = draw_source_indices(rng, STILL, draw_partial_map(1).grid, view, np.zeros(3))
    seen = (sample_labels(draw_partial_map(1).array, indices) == ORGANS["pancreas"]).sum()
    assert seen * view.voxel_volume_ml == pytest.approx(whole, rel=0.2)


def test_fine_voxels_take_the_map_itself_and_the_rest_is_drawn_coarsely():
  labels = draw_partial_map(1).array[:, :, 12:20]
  source = Volume(labels, draw_partial_map(1).affine)
  recipe = PaintingRecipe(pixel_mm=(1.9, 1.9), slice_mm=(8.0, 8.0), deformation=STILL)
  _, label = paint_map(source, "a", 0, recipe)
  assert label.spacing[0] < DRAWN_MM
  rng = make_generator("a", 0)
  view = draw_view(rng, source, recipe)
  seen = sample_labels(labels, draw_source_indices(rng, STILL, source.grid, view, np.zeros(3)))
  differ = np.where(np.isin(label.array, GIVEN), label.array, 0) != seen
  assert differ.mean() < 1e-3  # coordinates that are interpolated round otherwise at borders
  assert (label.array == ORGANS["bone"]).any()


def read_real_map(folder, names, tmp_path, map_id):
  if not (SHARED / folder).is_dir():
    pytest.skip(f"{SHARED / folder} is not there")
  (tmp_path / "labels.json").write_text(f'{{"labels": "{names}"}}')
  path = list_nifti_files(SHARED / folder)[map_id]
  return read_map(path, tuple(read_organs_of_values(tmp_path).items()))


def test_a_real_map_of_eight_organs_is_completed_and_painted(tmp_path):
  source = read_real_map("multiorgan_labels", "gibson8", tmp_path, "case88")
  image, label = paint_map(source, "case88", 0, RECIPE)
  there = {name for name, value in ALL_ORGANS.items() if (label.array == value).any()}
  assert there >= {"pancreas", "liver", "fat", "bone", "muscle", "aorta", "kidney_right", "colon"}
  pancreas = (label.array == ORGANS["pancreas"]).sum() * label.voxel_volume_ml
  assert 30 < pancreas < 80  # the map has 52 ml
  for organ in ("liver", "pancreas"):
    low, high = RANGES[organ]
    assert low < np.median(image.array[label.array == ORGANS[organ]]) < high


def test_a_real_map_of_104_classes_gets_no_second_spine(tmp_path):
  source = read_real_map("ct_nifti_3mm", "totalsegmentator104", tmp_path, "labels_104")
  _, label = paint_map(source, "x", 0, replace(RECIPE, deformation=STILL))
  given = [value for value in np.unique(source.array) if value]
  rng = make_generator("x", 0)
  view = draw_view(rng, source, RECIPE)
  seen = sample_labels(
    source.array, draw_source_indices(rng, STILL, source.grid, view, np.zeros(3))
  )
  assert (seen == ORGANS["bone"]).any()
  np.testing.assert_array_equal(np.where(np.isin(label.array, given), label.array, 0), seen)
  assert (label.array == ORGANS["fat"]).any()


def test_the_names_of_the_104_classes_are_those_of_the_real_scan(tmp_path):
  source = read_real_map("ct_nifti_3mm", "totalsegmentator104", tmp_path, "labels_104")
  hu = read_nifti(SHARED / "ct_nifti_3mm" / "ct.nii.gz").array
  shape = np.argwhere(read_nifti(SHARED / "ct_nifti_3mm" / "labels_104.nii.gz").array > 0)
  low = shape.min(0)
  hu = hu[low[0] :, low[1] :][: source.shape[0], : source.shape[1]]
  for organ, (least, most) in {"lung": (-900, -600), "bone": (90, 400), "muscle": (0, 70),
                               "liver": (20, 70), "aorta": (20, 70)}.items():  # fmt: skip
    assert least < np.median(hu[source.array == ALL_ORGANS[organ]]) < most
