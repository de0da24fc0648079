"""A sheared grid and its straight one: true shapes there, the same voxels back."""

import itertools

import numpy as np
import pytest

from attn_unet_jax.runtime import memory
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Grid, Volume
from attn_unet_jax.volumes.orientation import canonical_grid, to_canonical
from attn_unet_jax.volumes.shear import (
  shear_degrees,
  slant_image,
  slant_labels,
  straight_grid,
  straighten_image,
  straighten_labels,
)

RNG = np.random.default_rng(0)
SHAPE = (40, 36, 24)


def tilted_affine(degrees=18.0, in_plane=0.0):
  """Slices of 2 x 2 mm, 4 mm apart, that a gantry tilted about the patient's left-right axis."""
  affine = np.diag([2.0, 2, 4, 1])
  affine[1, 2] = 4 * np.tan(np.radians(degrees))
  affine[0, 1] = in_plane
  affine[:3, 3] = -40, -30, 7
  return affine


def draw_ball(grid, radius=20.0):
  """Returns the ball about the middle of a grid, by the places of its voxels in mm."""
  index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
  mm = index @ grid.affine[:3, :3].T + grid.affine[:3, 3]
  return np.linalg.norm(mm - grid.centre_mm, axis=-1) < radius


def test_perpendicular_axes_are_only_turned():
  affine = np.diag([-2.0, 2, 4, 1])
  affine[1, 2] = 0.04  # 0.92 mm over the stack
  volume = Volume(RNG.integers(0, 9, SHAPE), affine)
  assert shear_degrees(volume.grid) == 0
  for straighten in (straighten_image, straighten_labels):
    found = straighten(volume)
    np.testing.assert_array_equal(found.array, to_canonical(volume).array)
    np.testing.assert_array_equal(found.affine, canonical_grid(volume.grid).affine)
  np.testing.assert_array_equal(slant_labels(found.array, volume.grid).array, volume.array)


@pytest.mark.parametrize("degrees", [-25, 3, 18])
def test_the_straight_grid_has_perpendicular_axes_and_voxels_of_one_volume(degrees):
  grid = Grid(SHAPE, tilted_affine(degrees))
  assert shear_degrees(grid) == pytest.approx(abs(degrees))
  straight = straight_grid(grid)
  assert shear_degrees(straight) == 0
  np.testing.assert_allclose(straight.directions.T @ straight.directions, np.eye(3), atol=1e-12)
  assert straight.voxel_volume_ml == pytest.approx(grid.voxel_volume_ml, rel=1e-12)
  assert straight.spacing == (2, 2, 4)
  # 23 steps of 4 mm: no more than what the last slice is moved by, and no less.
  assert straight.shape == (40, 36 + np.ceil(46 * np.tan(np.radians(abs(degrees)))), 24)


@pytest.mark.parametrize("in_plane", [0.0, 0.3])
def test_a_ball_is_a_ball_again(in_plane):
  grid = Grid(SHAPE, tilted_affine(in_plane=in_plane))
  ball = Volume(draw_ball(grid), grid.affine)
  straight = straighten_labels(ball)
  wanted = draw_ball(straight.grid)
  overlap = 2 * (wanted & straight.array).sum() / (wanted.sum() + straight.array.sum())
  assert overlap > 0.95
  image = straighten_image(Volume(ball.array * np.int16(100) - np.int16(60), grid.affine))
  assert image.array.dtype == np.int16
  np.testing.assert_array_equal(image.array[0, 0], -60)  # beyond the slices
  half = image.array > -10
  assert 2 * (wanted & half).sum() / (wanted.sum() + half.sum()) > 0.95


@pytest.mark.parametrize("in_plane", [0.0, 0.3])
def test_labels_come_back_as_they_were_on_any_axes(in_plane):
  for permutation, signs in zip(
    itertools.permutations(range(3)), itertools.product((1, -1), repeat=3), strict=False
  ):
    affine = tilted_affine(in_plane=in_plane)
    affine[:3, :3] = affine[:3, permutation] * signs
    shape = tuple(np.array(SHAPE)[list(permutation)])
    volume = Volume(RNG.integers(1, 250, shape).astype(np.uint8), affine)
    straight = straighten_labels(volume)
    assert np.count_nonzero(straight.array) == volume.array.size
    back = slant_labels(straight.array, volume.grid)
    np.testing.assert_array_equal(back.array, volume.array)
    np.testing.assert_array_equal(back.affine, volume.affine)


def test_a_smooth_image_comes_back_to_a_fraction_of_its_step():
  grid = Grid(SHAPE, tilted_affine())
  index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
  values = (100 * np.sin(index @ (0.2, 0.15, 0.1))).astype(np.float32)
  back = slant_image(straighten_image(Volume(values, grid.affine)).array, grid)
  inner = (slice(2, -2),) * 3
  np.testing.assert_allclose(back.array[inner], values[inner], atol=1.0)
  np.testing.assert_array_equal(back.affine, grid.affine)


def test_air_lies_beyond_the_slices_and_not_padding():
  image = np.full(SHAPE, -3024, np.int16)
  image[10:30, 10:30] = 40
  assert straighten_image(Volume(image, tilted_affine())).array[0, -1, 0] == -1000


def test_values_of_another_shape_are_refused():
  grid = Grid(SHAPE, tilted_affine())
  for slant in (slant_image, slant_labels):
    with pytest.raises(ValueError, match="do not fit the straight"):
      slant(np.zeros(SHAPE), grid)


def test_noise_of_a_header_adds_no_column():
  affine = tilted_affine()
  affine[0, 2] = -1e-7
  grid = Grid(SHAPE, affine)
  assert straight_grid(grid).shape == straight_grid(Grid(SHAPE, tilted_affine())).shape
  # A voxel that lies beyond the last column by that noise has its value.
  image = slant_image(np.full(straight_grid(grid).shape, 7.0), grid).array
  np.testing.assert_allclose(image, 7)


def test_a_straight_grid_that_memory_cannot_hold_is_refused(monkeypatch):
  volume = Volume(np.zeros(SHAPE, np.int16), tilted_affine(89.9))
  voxels = np.prod(straight_grid(volume.grid).shape)
  monkeypatch.setattr(memory, "free_bytes", lambda: int(2 * voxels) - 1)
  for straighten in (straighten_image, straighten_labels):
    with pytest.raises(UserError, match=r"a\.nii: 40 x \d{5} x 24 voxels on .* axes take .*header"):
      straighten(volume, name="a.nii")
