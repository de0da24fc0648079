import numpy as np
import pytest

from attn_unet_jax.volumes.checks import check_pair
from attn_unet_jax.volumes.shear import shear_degrees
from attn_unet_jax.volumes.volume import Volume
from tfds_pancreas.grids import make_grid_config, make_record, parse_grid_name


@pytest.mark.parametrize(
  ("name", "spacing"), [("native", None), ("iso2mm", 2.0), ("iso1.5mm", 1.5), ("iso10mm", 10.0)]
)
def test_names_of_grids(name, spacing):
  assert parse_grid_name(name) == spacing


@pytest.mark.parametrize(
  "name", ["", "iso", "iso0mm", "iso0.00001mm", "iso2", "iso-1mm", "iso2mm ", "nativ"]
)
def test_other_names_are_refused(name):
  with pytest.raises(ValueError, match="a grid is called native, or iso2mm"):
    parse_grid_name(name)


def test_a_config_says_what_its_grid_is():
  native, coarse = (
    make_grid_config("native"),
    make_grid_config("iso4mm_x", about="2 cases", grid="iso4mm"),
  )
  assert (native.name, native.spacing_mm) == ("native", None)
  assert native.description == "Each scan's own voxels."
  assert (coarse.name, coarse.spacing_mm) == ("iso4mm_x", 4.0)
  assert coarse.description == "2 cases, 4 mm isotropic."


def test_native_keeps_every_voxel_and_rounds_fractions_of_a_unit():
  image = Volume(np.array([[[-1.6, 70000.0]]], np.float32), np.diag([1, 2, 3, 1.0]))
  label = Volume(np.array([[[0, 1]]], np.uint8), image.affine)
  record = make_record("a", image, label, None)
  assert record["image"].dtype == np.int16
  np.testing.assert_array_equal(record["image"], [[[-2, 32767]]])
  np.testing.assert_array_equal(record["label"], label.array)
  np.testing.assert_array_equal(record["affine"], image.affine)


def test_image_and_label_end_on_one_grid_of_the_same_centre():
  rng = np.random.default_rng(0)
  image = Volume(rng.integers(-100, 100, (7, 8, 9)).astype(np.int16), np.diag([0.8, 0.7, 2.5, 1]))
  label = Volume((image.array > 0).astype(np.uint8), image.affine)
  record = make_record("a", image, label, 1.0)
  assert record["image"].shape == record["label"].shape == (6, 6, 22)
  working = Volume(record["image"], record["affine"])
  assert working.spacing == (1.0, 1.0, 1.0)
  np.testing.assert_allclose(working.grid.centre_mm, image.grid.centre_mm)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
def test_a_record_is_rounded_and_clipped_whatever_lies_behind_its_axes(dtype):
  rng = np.random.default_rng(0)
  values = rng.normal(0, 30000, (5, 4, 6)) if dtype != np.int16 else rng.integers(-9, 9, (5, 4, 6))
  turned = values.astype(dtype).transpose(1, 2, 0)[::-1, :, ::-1]
  image = Volume(turned, np.eye(4))
  record = make_record("a", image, Volume(np.ones(turned.shape, np.uint8), np.eye(4)), None)
  expected = np.clip(np.rint(turned.astype(np.float64)), -32768, 32767)
  np.testing.assert_array_equal(record["image"], expected)
  assert record["image"].dtype == np.int16
  assert record["image"].flags.c_contiguous


def test_noise_in_a_tilted_labels_header_moves_nothing():
  affine = np.diag([0.7, 0.7, 2.5, 1])
  affine[1, 2] = 2.5 * np.tan(np.radians(15))
  noisy = affine.copy()
  noisy[0, 2] = -1e-7
  image = Volume(np.arange(12 * 11 * 10, dtype=np.int16).reshape(12, 11, 10), affine)
  labels = (image.array > 600).astype(np.uint8)
  label = Volume(labels, noisy)
  assert shear_degrees(image.grid) == pytest.approx(15)
  assert check_pair(image.grid, label.grid, ("image", "label")) is None
  record = make_record("a", image, label, 1.5)
  assert record["image"].shape == record["label"].shape
  wanted = make_record("a", image, Volume(labels, affine), 1.5)
  np.testing.assert_array_equal(record["label"], wanted["label"])
