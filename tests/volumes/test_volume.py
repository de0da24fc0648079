import numpy as np
import pytest

from attn_unet_jax.volumes import Grid, Volume
from attn_unet_jax.volumes.volume import corner_distance_mm, round_spacing


def turn_affine(degrees, affine):
  """Turns the patient about the head-foot axis."""
  c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
  return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ affine


def test_derived_from_the_affine():
  affine = np.diag([-0.8, -0.7, 2.5, 1.0])
  volume = Volume(np.zeros((4, 5, 6), np.int16), affine)
  assert volume.shape == (4, 5, 6)
  assert volume.spacing == (0.8, 0.7, 2.5)
  assert volume.orientation == "LPS"
  assert volume.voxel_volume_ml == pytest.approx(0.8 * 0.7 * 2.5 / 1000)
  assert volume.grid.centre_mm == pytest.approx([-0.8 * 1.5, -0.7 * 2, 2.5 * 2.5])


def test_volume_of_an_oblique_voxel_is_not_the_product_of_a_sheared_one():
  affine = np.diag([2.0, 3.0, 4.0, 1.0])
  affine[0, 2] = 1.5  # a shear, as a tilted gantry gives
  assert Grid((2, 2, 2), affine).voxel_volume_ml == pytest.approx(0.024)


def test_is_immutable_and_takes_no_copy():
  array = np.zeros((2, 3, 4), np.float32)
  volume = Volume(array, np.eye(4))
  with pytest.raises(ValueError, match=r"read-only"):
    volume.array[0, 0, 0] = 1
  with pytest.raises(ValueError, match=r"read-only"):
    volume.affine[0, 0] = 1
  assert np.shares_memory(volume.array, array)
  array[0, 0, 0] = 1  # the caller's own array stays writable


def test_affine_is_a_copy():
  affine = np.eye(4)
  grid = Grid((1, 1, 1), affine)
  affine[0, 0] = 9
  assert grid.spacing == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
  "affine",
  [
    np.full((4, 4), np.nan),
    np.eye(3),
    np.diag([1.0, 1.0, 0.0, 1.0]),
    np.diag([1.0, 1.0, 1e-6, 1.0]),
    np.diag([1e300, 1.0, 1.0, 1.0]),
    np.diag([1.0, 1.0, 1.0, 2.0]),
    np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
  ],
  ids=["nan", "3x3", "singular", "tiny spacing", "vast spacing", "projective", "parallel axes"],
)
def test_refuses_an_affine(affine):
  with pytest.raises(ValueError, match=r"affine"):
    Grid((2, 2, 2), affine)


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 2, 1), (0, 2, 2)])
def test_refuses_a_shape(shape):
  with pytest.raises(ValueError, match=r"three axes"):
    Volume(np.zeros(shape), np.eye(4))


@pytest.mark.parametrize(
  ("spacing", "rounded"),
  [(0.7500001, 0.75), (0.7499999, 0.75), (2.0, 2.0), (0.794921875, 0.7949), (0.97656, 0.9766)],
)
def test_rounds_spacings(spacing, rounded):
  assert round_spacing(spacing) == rounded


@pytest.mark.parametrize("spacing", [0.78125, 0.90625, 0.84375, 0.71875, 0.65625, 0.59375])
def test_common_spacings_that_end_in_half_a_unit_survive_float32_noise(spacing):
  expected = Grid((9, 9, 9), np.diag([spacing] * 3 + [1])).spacing
  for degrees in range(1, 90):
    affine = turn_affine(degrees, np.diag([spacing] * 3 + [1])).astype(np.float32)
    assert Grid((9, 9, 9), affine).spacing == expected


def test_corner_distance_is_the_largest_over_all_voxels():
  a = Grid((4, 5, 6), np.eye(4))
  b = Grid((4, 5, 6), turn_affine(3, np.diag([1.1, 1, 1, 1])))
  index = np.moveaxis(np.indices((4, 5, 6, 1)), 0, -1).reshape(-1, 4)
  index[:, 3] = 1
  by_hand = np.linalg.norm((index @ (a.affine - b.affine).T)[:, :3], axis=1).max()
  assert corner_distance_mm(a, b) == pytest.approx(by_hand)
