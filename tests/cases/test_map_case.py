"""A label map on the working grid, in the place of an image."""

import dataclasses

import numpy as np
import pytest

from attn_unet_jax.cases.cache import load_or_prepare
from attn_unet_jax.cases.dataset import NativeCase
from attn_unet_jax.cases.map_case import prepare_map
from attn_unet_jax.cases.prepare import prepare_case
from attn_unet_jax.labels import SHARE_STEPS, parse_mapping
from attn_unet_jax.painting.materials import FIRST_CONTENT, NUM_MATERIALS
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.volume import Volume
from tests.configs import with_keys
from tests.painted_maps import draw_whole_map
from tfds_pancreas.abdomen.organs import ORGANS


@pytest.fixture(scope="module")
def case():
  label = draw_whole_map(1)
  turned = np.diag([-1.0, 1, 1, 1]) @ label.affine  # a file whose X runs to the left
  image = np.zeros(label.array.shape, np.int16)
  return NativeCase("a", Volume(image, turned), Volume(label.array, turned), "a")


@pytest.mark.parametrize("spacing", [8.0, 10.0])
def test_materials_and_classes_lie_on_one_grid_and_agree(config, case, spacing):
  config = with_keys(config, {"data.spacing_mm": spacing, "data.labels": "pancreas,liver"})
  mapping = parse_mapping("pancreas,liver", ORGANS)
  working = prepare_map(case, mapping, config.data)
  np.testing.assert_array_equal(working.label == 1, working.image == ORGANS["pancreas"])
  np.testing.assert_array_equal(working.label == 2, working.image == ORGANS["liver"])
  assert working.image.dtype == np.uint8
  assert FIRST_CONTENT < working.image.max() < NUM_MATERIALS
  scan = prepare_case(case, mapping, config.data)
  # Where a coarse voxel is shared by three organs, two of them together may have most of it.
  assert (working.label != scan.label).mean() < 0.01


def test_soft_labels_are_those_of_a_scan(config, case):
  config = with_keys(config, {"data.spacing_mm": 10.0, "data.label_resampling": "occupancy"})
  mapping = parse_mapping("pancreas", ORGANS)
  working, scan = (make(case, mapping, config.data) for make in (prepare_map, prepare_case))
  np.testing.assert_array_equal(working.label, scan.label)
  mostly = working.label > 0.8 * SHARE_STEPS
  assert (working.image[mostly] == ORGANS["pancreas"]).all()


def test_a_map_comes_out_of_the_folder_of_prepared_cases_as_it_went_in(config, case, tmp_path):
  config = with_keys(config, {"data.spacing_mm": 10.0})
  made = prepare_map(case, parse_mapping("pancreas", ORGANS), config.data)
  for _ in range(2):
    found = load_or_prepare(tmp_path, "a", "digest", lambda: made)
    assert found.image.dtype == np.uint8
    np.testing.assert_array_equal(found.image, made.image)


@pytest.mark.parametrize(("value", "dtype"), [(200, np.uint8), (-1, np.int16)])
def test_a_value_that_cannot_be_painted_is_refused_by_case(config, case, value, dtype):
  array = case.label.array.astype(dtype)
  array[0, 0, 0] = value
  mapping = parse_mapping("pancreas,background=*", ORGANS)
  damaged = dataclasses.replace(case, label=Volume(array, case.label.affine))
  with pytest.raises(UserError, match=rf"^a: label values \[{value}\] are not among those that"):
    prepare_map(damaged, mapping, config.data)


def test_materials_of_labels_of_a_wider_type_are_told_from_hu(config, case):
  config = with_keys(config, {"data.spacing_mm": 10.0})
  wider = dataclasses.replace(
    case, label=Volume(case.label.array.astype(np.int16), case.label.affine)
  )
  mapping = parse_mapping("pancreas", ORGANS)
  found, known = (prepare_map(one, mapping, config.data).image for one in (wider, case))
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, known)
