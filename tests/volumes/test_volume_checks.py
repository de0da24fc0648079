import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Grid, Volume
from attn_unet_jax.volumes.checks import check_image, check_pair, working_grid_within_memory

NAMES = ("ct.nii.gz", "label.nii.gz")


def make_grid(shape=(10, 10, 10), spacing=(1, 1, 1), origin=(0, 0, 0), degrees=0):
  affine = np.diag([*spacing, 1.0])
  c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
  affine[:2, :2] = np.array([[c, -s], [s, c]]) @ affine[:2, :2]
  affine[:3, 3] = origin
  return Grid(shape, affine)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_image_must_be_finite(value):
  array = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
  array[0, 1, 0] = value
  with pytest.raises(UserError, match=r"a.nii: 1 of 8 voxels are NaN or infinite"):
    check_image(Volume(array, np.eye(4)), "a.nii")


def test_image_must_vary():
  with pytest.raises(UserError, match=r"a.nii: all voxels are -1024"):
    check_image(Volume(np.full((2, 2, 2), -1024, np.int16), np.eye(4)), "a.nii")


def test_the_whole_range_of_a_type_does_not_overflow():
  # NumPy would warn, and warnings are errors here.
  ends = np.array([-32768, 32767] * 4, np.int16).reshape(2, 2, 2)
  check_image(Volume(ends, np.eye(4)), "a.nii")


def test_a_sound_image_passes():
  check_image(Volume(np.arange(8, dtype=np.int16).reshape(2, 2, 2), np.eye(4)), "a.nii")


def test_a_working_grid_that_memory_holds_passes():
  assert working_grid_within_memory(make_grid(spacing=(1, 1, 3)), 2.0, "a.nii").shape == (5, 5, 15)


@pytest.mark.parametrize(
  ("of_scan", "wanted", "words"),
  [
    (1e7, 2.0, "voxels of 2 mm in its field of 1e.08 x 1e.08 x 1e.08 mm take 6.98e.14 GiB"),
    (1.0, 1e-4, "voxels of 0.0001 mm in its field of 10 x 10 x 10 mm take .* larger spacing"),
  ],
  ids=["scan", "config"],
)
def test_a_working_grid_beyond_memory_is_refused(of_scan, wanted, words):
  with pytest.raises(UserError, match=f"a.nii: {words}"):
    working_grid_within_memory(make_grid(spacing=(of_scan,) * 3), wanted, "a.nii")


def test_equal_grids_pass_in_silence():
  assert check_pair(make_grid(), make_grid(origin=(0, 0, 5e-4)), NAMES) is None


def test_the_same_voxels_in_another_order_of_axes_pass():
  flipped = np.diag([-1.0, -1.0, 1.0, 1.0])
  flipped[:2, 3] = 9
  assert check_pair(make_grid(), Grid((10, 10, 10), flipped), NAMES) is None


def test_a_small_displacement_is_named_and_harmless():
  message = check_pair(make_grid(), make_grid(origin=(0.03, 0.04, 0)), NAMES)
  assert message is not None
  assert "label.nii.gz and its image ct.nii.gz" in message
  assert "up to 0.0500 mm" in message
  assert "harmless" in message


@pytest.mark.parametrize(
  ("label", "what"),
  [
    (make_grid(shape=(10, 10, 9)), r"shapes \(10, 10, 9\) and \(10, 10, 10\)"),
    (
      make_grid(spacing=(1, 1, 2)),
      r"up to 9.000 mm.*spacing \(1.0, 1.0, 1.0\) and \(1.0, 1.0, 2.0\)",
    ),
    (make_grid(origin=(3, 4, 0)), r"up to 5.000 mm.*first voxel 5.000 mm apart"),
    (make_grid(degrees=10), r"axes turned by 10.00 degrees"),
  ],
  ids=["shape", "spacing", "origin", "turned"],
)
def test_what_differs_is_named(label, what):
  with pytest.raises(UserError, match=what) as caught:
    check_pair(make_grid(), label, NAMES)
  assert "\n" not in str(caught.value)


def test_a_tenth_of_the_smallest_edge_is_harmless_and_no_more():
  thick = (1, 2, 5)
  assert "harmless" in check_pair(
    make_grid(spacing=thick), make_grid(spacing=thick, origin=(0, 0, 0.09)), NAMES
  )
  with pytest.raises(UserError, match=r"at most 0\.100 mm is harmless"):
    check_pair(make_grid(spacing=thick), make_grid(spacing=thick, origin=(0, 0, 0.11)), NAMES)
