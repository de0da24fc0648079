import dataclasses
import tracemalloc

import numpy as np
import pytest

from attn_unet_jax.cases.dataset import NativeCase
from attn_unet_jax.cases.prepare import native_classes, prepare_case, working_image
from attn_unet_jax.labels import SHARE_STEPS, parse_mapping
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Volume
from tests.configs import with_keys

AFFINE = np.array([[0, 0, 2.0, -5], [-1, 0, 0, 9], [0, 1.5, 0, 3], [0, 0, 0, 1]])


@pytest.fixture
def case():
  rng = np.random.default_rng(0)
  image = rng.integers(-1000, 1000, (20, 18, 16)).astype(np.int16)
  label = np.zeros(image.shape, np.uint8)
  label[5:12, 4:11, 3:9] = 3
  return NativeCase("a", Volume(image, AFFINE), Volume(label, AFFINE), "a.nii.gz")


def test_a_scan_is_held_once_in_float(config):
  config = with_keys(config, {"data.spacing_mm": 1.0})
  scan = Volume(np.arange(40 * 36 * 30, dtype=np.int16).reshape(40, 36, 30), np.diag([4, 4, 4, 1]))
  tracemalloc.start()
  size = working_image(scan, config.data).array.size
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert size == 160 * 144 * 120
  assert peak < 6.5 * size


def test_image_and_label_share_one_grid(config, case):
  config = with_keys(config, {"data.spacing_mm": 2.0})
  working = prepare_case(case, parse_mapping("pancreas=3", None), config.data)
  # Canonical extents: X is the file's third axis (16 x 2 mm), Y its first, Z its second.
  assert working.image.shape == working.label.shape == (16, 10, 14)
  assert working.image.dtype == np.int16
  assert set(np.unique(working.label)) == {0, 1}
  assert int(working.label.sum()) * 8 == pytest.approx(7 * 7 * 6 * 3, rel=0.2)
  assert working.mean == pytest.approx(working.image.mean(), abs=1e-6)
  assert working.sd == pytest.approx(working.image.std(), abs=1e-6)


def test_a_soft_label_is_a_share_and_patches_centre_on_voxels_half_full(config, case):
  config = with_keys(config, {"data.spacing_mm": 2.0, "data.label_resampling": "occupancy"})
  working = prepare_case(case, parse_mapping("pancreas=3", None), config.data)
  assert len(np.unique(working.label)) > 3
  assert working.label.max() == SHARE_STEPS
  assert working.label.sum(dtype=int) / SHARE_STEPS * 8 == pytest.approx(7 * 7 * 6 * 3, rel=0.1)
  centred = np.zeros(working.label.shape, bool)
  centred[tuple(working.centres.T)] = True
  np.testing.assert_array_equal(centred, working.label >= SHARE_STEPS / 2)


def test_the_native_spacing_changes_nothing(config, case):
  canonical = to_canonical(Volume(case.image.array, np.eye(4)))
  config = with_keys(config, {"data.spacing_mm": 1.0})
  np.testing.assert_array_equal(working_image(canonical, config.data).array, case.image.array)


def test_classes_lie_where_the_image_does(case):
  """Also those of a label whose header is off by what is harmless."""
  moved = AFFINE.copy()
  moved[0, 3] += 0.05
  classes = native_classes(
    dataclasses.replace(case, label=Volume(case.label.array, moved)),
    parse_mapping("pancreas=3", None),
  )
  np.testing.assert_array_equal(classes.affine, AFFINE)
  np.testing.assert_array_equal(classes.array, case.label.array == 3)


def test_hu_are_rounded_and_held_within_int16(config):
  """At half a voxel of 0, 3, 6, 9: 1.5 and 7.5."""
  config = with_keys(config, {"data.spacing_mm": 2.0})
  hu = np.array([[0, 3, 6, 9], [4e4] * 4, [-4e4] * 4], np.float32).T[:, None]
  found = working_image(Volume(hu, np.diag([1.0, 2.0, 2.0, 1.0])), config.data).array
  np.testing.assert_array_equal(found[:, 0].T, [[2, 8], [32767] * 2, [-32768] * 2])


def test_blur_smooths(config, case):
  canonical = to_canonical(case.image)
  config = with_keys(config, {"data.spacing_mm": 2.0})
  sharp = working_image(canonical, config.data).array.std()
  config = with_keys(config, {"data.blur_mm": 2.0})
  assert working_image(canonical, config.data).array.std() < 0.5 * sharp


def test_more_than_memory_holds_names_the_case(config, case):
  config = with_keys(config, {"data.spacing_mm": 1e-3, "data.blur_mm": 0.75})
  with pytest.raises(UserError, match=r"a: voxels of 0\.001 mm in its field of 32 x 20 x 27 mm"):
    prepare_case(case, parse_mapping("pancreas=3", None), config.data)


def test_values_outside_the_mapping_name_the_file(config, case):
  with pytest.raises(UserError, match=r"a\.nii\.gz: label values \[3\]"):
    prepare_case(case, parse_mapping("pancreas=1", None), config.data)
