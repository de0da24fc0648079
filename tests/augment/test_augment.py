"""Augmentation: identities, exact flips and turns, and labels that follow images."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from attn_unet_jax.augment import affine, intensity, warp
from attn_unet_jax.augment import patch as augment
from attn_unet_jax.augment.options import OKTAY_2018, Augmentation
from attn_unet_jax.augment.patch import source_shape
from attn_unet_jax.augment.warp import draw_mirrored_axes, mirror_volume
from attn_unet_jax.labels import UNLABELLED

# As a step has them: one program each, where Python would run and compile forty small ones.
augment_patch = jax.jit(augment.augment_patch, static_argnames=("patch", "augmentation"))
warp_block = jax.jit(warp.warp_block, static_argnames=("patch", "nearest"))
PATCH = (6, 8, 4)
NEUTRAL = Augmentation()
STRONG = Augmentation(
  flip=(0.5, 0.5, 0.5),
  rotate_deg=(20, 30, 45),
  scale=(0.7, 1.4),
  scale_axes=(True, True, False),
  shift=(0.1, 0.2, 0.0),
  intensity_scale=(0.8, 1.2),
  intensity_shift=(-0.3, 0.3),
  noise_sd=(0.0, 0.2),
)
SPATIAL = dataclasses.replace(
  STRONG, intensity_scale=(1.0, 1.0), intensity_shift=(0.0, 0.0), noise_sd=(0.0, 0.0)
)
KEYS = jax.random.split(jax.random.key(0), 200)


def _block(shape, seed=0):
  rng = np.random.default_rng(seed)
  image = rng.normal(size=shape).astype(np.float32)
  return jnp.array(image), jnp.array(rng.integers(0, 4, shape), jnp.uint8)


def _positions(shape):
  """Coordinates [3, X, Y, Z] of a grid's voxels, from its centre."""
  axes = [np.arange(n) - (n - 1) / 2 for n in shape]
  return np.stack(np.meshgrid(*axes, indexing="ij"))


def _warped_positions(matrix, patch):
  """The definition, written with a matrix product in float64."""
  matrix = np.array(matrix, np.float64)
  linear = matrix[:, :3] @ _positions(patch).reshape(3, -1)
  return (linear + matrix[:, 3:]).reshape(3, *patch)


@pytest.fixture(scope="module")
def matrices():
  draw = jax.jit(jax.vmap(lambda key: affine.draw_spatial_matrix(key, PATCH, STRONG)))
  return np.array(draw(KEYS), np.float64)


@pytest.fixture(scope="module")
def strong_batch():
  image, label = _block(source_shape(PATCH, STRONG))
  step = jax.jit(jax.vmap(lambda key: augment_patch(key, image, label, PATCH, STRONG)))
  return image, label, step


def test_neutral_is_the_identity():
  image, label = _block(PATCH)
  assert source_shape(PATCH, NEUTRAL) == PATCH
  out_image, out_label = augment_patch(KEYS[0], image, label, PATCH, NEUTRAL)
  np.testing.assert_array_equal(out_image, image)
  np.testing.assert_array_equal(out_label, label)
  assert out_label.dtype == jnp.uint8


def test_patch_left_unwarped_is_bit_exact():
  """Resampled at whole voxels, a patch keeps its bits."""
  image, label = _block((10, 12, 6))
  middle = (slice(2, 8), slice(2, 10), slice(1, 5))
  np.testing.assert_array_equal(warp_block(image, jnp.eye(3, 4), PATCH), image[middle])
  same = warp_block(label, jnp.eye(3, 4), PATCH, nearest=True)
  np.testing.assert_array_equal(same, label[middle])


@pytest.mark.parametrize("axis", range(3))
def test_flip_is_exact(axis):
  image, label = _block(PATCH)
  always = Augmentation(flip=tuple(float(a == axis) for a in range(3)))
  out_image, out_label = augment_patch(KEYS[0], image, label, PATCH, always)
  np.testing.assert_array_equal(out_image, np.flip(image, axis))
  np.testing.assert_array_equal(out_label, np.flip(label, axis))


def test_flips_are_independent_and_as_frequent_as_asked():
  image = jnp.arange(8.0).reshape(2, 2, 2)
  some = Augmentation(flip=(0.5, 0.25, 0.0))
  draw = jax.jit(jax.vmap(lambda key: mirror_volume(image, draw_mirrored_axes(key, some))))
  first = draw(KEYS)[:, 0, 0, 0]
  x, y, z = (np.array(first).astype(int) >> bit & 1 for bit in (2, 1, 0))
  assert abs(x.mean() - 0.5) < 0.12  # more than three standard deviations of 200 draws
  assert abs(y.mean() - 0.25) < 0.12
  assert abs((x * y).mean() - 0.125) < 0.08
  assert not z.any()


def test_warped_patches_flip_as_others():
  """Folded into the coordinates, a flip is still the flip of the unflipped patch."""
  image, label = _block(source_shape(PATCH, SPATIAL))
  plain, plain_label = augment_patch(
    KEYS[0], image, label, PATCH, dataclasses.replace(SPATIAL, flip=(0, 0, 0))
  )
  flipped, flipped_label = augment_patch(
    KEYS[0], image, label, PATCH, dataclasses.replace(SPATIAL, flip=(1, 0, 1))
  )
  np.testing.assert_allclose(flipped, plain[::-1, :, ::-1], atol=1e-4)
  np.testing.assert_array_equal(flipped_label, plain_label[::-1, :, ::-1])


@pytest.mark.parametrize(("axis", "plane"), [(0, (1, 2)), (1, (2, 0)), (2, (0, 1))])
def test_quarter_turn_equals_rot90(axis, plane):
  """source = R x with R a turn by +90 degrees: the picture turns by -90 degrees."""
  image, label = _block((5, 5, 5))
  angles = [np.pi / 2 if a == axis else 0.0 for a in range(3)]
  turn = jnp.array(affine.rotation_entries(angles, np)) @ jnp.eye(3, 4)
  turned = warp_block(image, turn, image.shape)
  np.testing.assert_allclose(turned, np.rot90(image, -1, plane), atol=1e-5)
  turned = warp_block(label, turn, image.shape, nearest=True)
  np.testing.assert_array_equal(turned, np.rot90(label, -1, plane))


def test_drawn_matrices_are_rotation_times_scale(matrices):
  """Singular values and the third column tell scale; R^T offset tells shift."""
  scales = np.linalg.norm(matrices[:, :, :3], axis=1)
  assert scales[:, :2].min() > 0.7 - 1e-5
  assert scales[:, :2].max() < 1.4 + 1e-5
  assert np.ptp(scales[:, :2], axis=0).min() > 0.6
  assert np.abs(scales[:, 0] - scales[:, 1]).max() > 0.3  # axes are drawn apart
  np.testing.assert_allclose(scales[:, 2], 1, atol=1e-6)
  rotations = matrices[:, :, :3] / scales[:, None, :]
  np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-5)
  shifts = np.einsum("nij,ni->nj", rotations, matrices[:, :, 3])
  limits = np.multiply(PATCH, STRONG.shift)
  assert (np.abs(shifts) <= limits + 1e-5).all()
  assert (np.abs(shifts).max(0) >= 0.9 * limits - 1e-5).all()


@pytest.mark.parametrize("axis", range(3))
def test_rotation_angle_stays_in_its_range(axis):
  one = Augmentation(rotate_deg=tuple(30.0 if a == axis else 0.0 for a in range(3)))
  draw = jax.jit(jax.vmap(lambda key: affine.draw_spatial_matrix(key, PATCH, one)))
  rotation = np.array(draw(KEYS))
  after, last = (axis + 1) % 3, (axis + 2) % 3
  angles = np.degrees(np.arctan2(rotation[:, last, after], rotation[:, after, after]))
  assert np.abs(angles).max() < 30 + 1e-3
  assert angles.min() < -27
  assert angles.max() > 27
  np.testing.assert_allclose(rotation[:, axis, axis], 1, atol=1e-6)


def test_spatial_probability():
  half = dataclasses.replace(STRONG, spatial_probability=0.5)
  draw = jax.jit(jax.vmap(lambda key: affine.draw_spatial_matrix(key, PATCH, half)))
  same = (np.array(draw(KEYS)) == np.eye(3, 4)).all((1, 2))
  assert 0.38 < same.mean() < 0.62
  never = dataclasses.replace(STRONG, spatial_probability=0.0)
  assert not never.warps


def test_samples_lie_inside_the_block(matrices):
  block = source_shape(PATCH, STRONG)
  limits = (np.array(block) - 1) / 2
  for matrix in matrices:
    reach = np.abs(_warped_positions(matrix, PATCH)).max((1, 2, 3))
    assert (reach <= limits + 1e-3).all()


@pytest.mark.parametrize("seed", range(8))
def test_block_is_no_larger_than_needed(seed):
  """The bound holds for extreme draws of random ranges, and is reached within a voxel."""
  rng = np.random.default_rng(seed)
  patch = tuple(int(n) for n in rng.integers(4, 60, 3))
  rotate = tuple(rng.uniform(0, 60, 3) * rng.integers(0, 2, 3))
  ranges = Augmentation(rotate_deg=rotate, scale=(0.8, 1.3), shift=tuple(rng.uniform(0, 0.2, 3)))
  corners = (np.array(patch) - 1) / 2 * 1.3 + np.multiply(ranges.shift, patch)
  angles = np.radians(rotate)[:, None] * rng.uniform(-1, 1, (3, 20000))
  angles[:, :8] = np.radians(rotate)[:, None] * _positions((2, 2, 2)).reshape(3, 8) * 2
  rows = affine.rotation_entries(angles, np)
  reach = [max(sum(abs(r) * c for r, c in zip(row, corners, strict=True))) for row in rows]
  limits = (np.array(source_shape(patch, ranges)) - 1) / 2
  assert (reach <= limits + 1e-3).all()
  wanted = np.maximum(np.array(patch) - 1, 2 * np.array(reach)) / 2
  assert (limits - wanted < 1.6).all()


def test_block_of_simple_ranges_by_hand():
  assert source_shape((48, 48, 48), Augmentation(shift=(0.25, 0, 0))) == (72, 48, 48)
  assert source_shape((9, 9, 9), Augmentation(scale=(0.5, 1.5))) == (13, 13, 13)
  for smaller in ((0.5, 0.9), (0.2, 0.4)):
    assert source_shape((9, 9, 9), Augmentation(scale=smaller)) == (9, 9, 9)
  only_x = Augmentation(scale=(0.5, 1.5), scale_axes=(True, False, False))
  assert source_shape((9, 9, 9), only_x) == (13, 9, 9)
  # |x cos a| + |y sin a| is largest, hypot(4, 4) = 5.66, at 45 degrees: inside the range.
  assert source_shape((9, 9, 9), Augmentation(rotate_deg=(0, 0, 90))) == (13, 13, 9)


def test_coordinates_are_warped_exactly(matrices):
  """A linear image of the coordinates, interpolated, is the transformed coordinates."""
  block = source_shape(PATCH, STRONG)
  volumes = jnp.array(_positions(block), jnp.float32)
  warp_all = jax.jit(jax.vmap(lambda v, m: warp_block(v, m, PATCH), in_axes=(0, None)))
  for matrix in matrices[:5]:
    expected = _warped_positions(matrix, PATCH)
    np.testing.assert_allclose(warp_all(volumes, jnp.array(matrix)), expected, atol=1e-4)


def test_warp_equals_scipy(matrices):
  block = source_shape(PATCH, STRONG)
  image, label = _block(block)
  centre = (np.array(block)[:, None, None, None] - 1) / 2
  at = _warped_positions(matrices[0], PATCH) + centre
  matrix = jnp.array(matrices[0], jnp.float32)
  smooth = ndimage.map_coordinates(np.array(image), at, order=1, mode="nearest")
  np.testing.assert_allclose(warp_block(image, matrix, PATCH), smooth, atol=1e-4)
  near = ndimage.map_coordinates(np.array(label), at, order=0, mode="nearest")
  np.testing.assert_array_equal(warp_block(label, matrix, PATCH, nearest=True), near)


def test_outside_is_clamped_to_the_border():
  image, _ = _block((4, 4, 4))
  away = jnp.eye(3, 4).at[:, 3].set(jnp.array([50.0, -50.0, 0.0]))
  out = warp_block(image, away, image.shape)
  np.testing.assert_array_equal(out, jnp.broadcast_to(image[3, 0], (4, 4, 4)))


def test_label_follows_its_image():
  """A smooth image and its own threshold as label stay in step under the whole spatial part."""
  patch = (16, 16, 16)
  block = source_shape(patch, SPATIAL)
  image = jnp.array(
    np.sin(_positions(block) * [[[[0.2]]], [[[0.3]]], [[[0.25]]]]).sum(0), "float32"
  )
  label = (image > 0).astype(jnp.uint8)
  step = jax.jit(lambda key: augment_patch(key, image, label, patch, SPATIAL))
  for key in KEYS[:5]:
    out_image, out_label = step(key)
    # Within half a voxel the image changes by at most 0.375; farther from 0 the sign is certain.
    certain = np.abs(np.array(out_image)) > 0.4
    assert certain.mean() > 0.4
    np.testing.assert_array_equal((np.array(out_image) > 0)[certain], out_label[certain] == 1)


def test_label_warped_as_its_own_image(strong_batch, matrices):
  """The nearest warp of a label map and of the same map as a float image are equal."""
  _, label, _ = strong_batch
  nearest = jax.jit(lambda v, m: warp_block(v, m, PATCH, nearest=True))
  for matrix in jnp.array(matrices[:5], jnp.float32):
    np.testing.assert_array_equal(
      nearest(label, matrix).astype(np.float32), nearest(label.astype(jnp.float32), matrix)
    )


def test_intensity_formula():
  """Degenerate ranges leave only the noise to be known; its own key gives it."""
  image, _ = _block(PATCH)
  fixed = Augmentation(intensity_scale=(1.5, 1.5), intensity_shift=(0.25, 0.25))
  out = intensity.change_intensity(KEYS[0], image, fixed)
  np.testing.assert_allclose(out, 1.5 * image + 0.25, rtol=1e-6)
  noisy = dataclasses.replace(fixed, noise_sd=(0.1, 0.1))
  noise = jax.random.normal(jax.random.split(KEYS[0], 4)[3], PATCH)
  out = intensity.change_intensity(KEYS[0], image, noisy)
  np.testing.assert_allclose(out, 1.5 * image + 0.25 + 0.1 * noise, rtol=1e-5, atol=1e-6)


def test_intensity_ranges():
  ranges = Augmentation(intensity_scale=(0.5, 2.0), intensity_shift=(-1.0, 3.0))
  ends = jnp.array([0.0, 1.0])
  out = jax.jit(jax.vmap(lambda key: intensity.change_intensity(key, ends, ranges)))(KEYS)
  shift, scale = np.array(out[:, 0]), np.array(out[:, 1] - out[:, 0])
  for drawn, (low, high) in ((shift, (-1, 3)), (scale, (0.5, 2))):
    assert low - 1e-5 <= drawn.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < drawn.max() <= high + 1e-5


def test_the_noise_of_every_image_has_its_own_sd():
  ranges = Augmentation(noise_sd=(0.5, 2.0))
  zeros = jnp.zeros((6, 6, 6))
  sd = jax.jit(jax.vmap(lambda key: intensity.change_intensity(key, zeros, ranges).std()))(KEYS)
  assert 0.4 < sd.min() < 0.65 < 1.85 < sd.max() < 2.2
  assert 1.1 < sd.mean() < 1.4


def test_noise_leaves_the_label_and_has_its_sd():
  image, label = jnp.zeros((20, 20, 20)), jnp.ones((20, 20, 20), jnp.uint8)
  noise = Augmentation(noise_sd=(0.5, 0.5))
  out, same = augment_patch(KEYS[0], image, label, image.shape, noise)
  assert float(out.std()) == pytest.approx(0.5, rel=0.05)
  np.testing.assert_array_equal(same, label)


def test_the_key_decides(strong_batch):
  """Same key, same patch, alone or in a batch; other key, other patch."""
  image, label, step = strong_batch
  keys = KEYS[jnp.array([0, 1, 0])]
  images, labels = step(keys)
  np.testing.assert_array_equal(images[0], images[2])
  np.testing.assert_array_equal(labels[0], labels[2])
  assert not np.array_equal(images[0], images[1])
  assert not np.array_equal(labels[0], labels[1])
  alone, _ = augment_patch(KEYS[1], image, label, PATCH, STRONG)
  np.testing.assert_allclose(alone, images[1], atol=1e-4)


def test_parts_are_drawn_apart(strong_batch):
  """Switching the intensity part off leaves the geometry as it was."""
  image, label, step = strong_batch
  _, plain = augment_patch(KEYS[3], image, label, PATCH, SPATIAL)
  np.testing.assert_array_equal(step(KEYS[3:6])[1][0], plain)  # three keys, as above


def test_block_of_the_wrong_shape():
  image, label = _block(PATCH)
  with pytest.raises(ValueError, match="expected"):
    augment_patch(KEYS[0], image, label, PATCH, STRONG)


@pytest.mark.parametrize(
  "wrong",
  [
    {"scale": (1.2, 0.8)},
    {"scale": (0.0, 1.0)},
    {"noise_sd": (-0.1, 0.1)},
    {"flip": (0.5, 1.5, 0.0)},
    {"shift": (0.1, 0.1)},
    {"scale_axes": (True, True)},
    {"rotate_deg": (5.0, 5.0, -5.0)},
    {"intensity_scale": (0.5, 1.0, 2.0)},
    {"intensity_shift": (0.1, -0.1)},
    {"corner_scale": -0.1},
    {"spatial_probability": -0.5},
    {"spatial_probability": 1.01},
    {"deform_probability": 1.01},
    {"histogram_probability": 1.01},
  ],
)
def test_ranges_are_checked(wrong):
  ((name, value),) = wrong.items()
  with pytest.raises(ValueError, match=re.escape(f"{name}={value!r}: must be ")):
    Augmentation(**wrong)


@pytest.mark.parametrize(
  ("changes", "warps"),
  [
    ({}, False),
    ({"flip": (0.5, 0.5, 0.5), "intensity_scale": (0.5, 2.0), "noise_sd": (0.1, 0.2)}, False),
    ({"rotate_deg": (0.0, 0.5, 0.0)}, True),
    ({"shift": (0.0, 0.0, 0.1)}, True),
    ({"corner_scale": 0.1}, True),
    ({"scale": (0.9, 1.0)}, True),
    ({"scale": (1.0, 1.1), "scale_axes": (False, False, True)}, True),
    ({"scale": (0.9, 1.1), "scale_axes": (False, False, False)}, False),
    ({"rotate_deg": (9.0, 9.0, 9.0), "spatial_probability": 0.0}, False),
    ({"rotate_deg": (9.0, 9.0, 9.0), "spatial_probability": 0.5}, True),
    ({"deform_sd": (0.0, 0.5, 0.0)}, True),
    ({"deform_sd": (0.0, 0.5, 0.0), "spatial_probability": 0.0}, True),
    ({"deform_sd": (0.0, 0.5, 0.0), "deform_probability": 0.5}, True),
    ({"deform_sd": (0.0, 0.5, 0.0), "deform_probability": 0.0}, False),
  ],
)
def test_what_is_resampled(changes, warps):
  """Only what some patch needs it for, as interpolation costs time and sharpness."""
  assert Augmentation(**changes).warps == warps


def test_shares_are_interpolated_as_the_image_is():
  image, _ = _block(source_shape(PATCH, SPATIAL))
  share = (image - image.min()) / (image.max() - image.min())
  warped, label = augment_patch(KEYS[0], share, share, PATCH, SPATIAL)
  assert label.dtype == jnp.float32
  np.testing.assert_allclose(label, warped, atol=1e-6)


def test_shares_are_of_the_known_neighbours_and_unknown_where_most_are():
  """An unknown voxel counts as no share; its value must not leak into its neighbours."""
  shape = source_shape(PATCH, SPATIAL)
  half = jnp.where(jnp.arange(shape[0])[:, None, None] < shape[0] // 2, 0.25, UNLABELLED)
  share = jnp.broadcast_to(half, shape).astype(jnp.float32)
  found = {round(float(value), 4) for value in np.unique(
    augment_patch(KEYS[0], share, share, PATCH, SPATIAL)[1].round(4)
  )}  # fmt: skip
  assert found == {0.25, float(UNLABELLED)}


def test_the_released_recipe_moves_all_slices_of_a_scan_alike():
  draw = jax.jit(jax.vmap(lambda key: affine.draw_spatial_matrix(key, (10, 20, 8), OKTAY_2018)))
  matrices = np.asarray(draw(KEYS))
  linear, offset = matrices[:, :, :3], matrices[:, :, 3]
  np.testing.assert_allclose(linear[:, 2], np.eye(3)[[2] * len(KEYS)], atol=1e-6)
  np.testing.assert_allclose(linear[:, :2, 2], 0, atol=1e-6)
  np.testing.assert_allclose(offset[:, 2], 0, atol=1e-6)
  # A factor for each axis, and a shift of a tenth of the patch that the turn turns along.
  lengths = np.linalg.norm(linear[:, :2, :2], axis=1)
  assert lengths.min() >= 0.7 - 1e-5
  assert lengths.max() <= 1.3 + 1e-5
  assert (np.ptp(lengths, axis=0) > 0.5).all()
  turn = linear[:, :2, :2] / lengths[:, None]
  shift = np.abs(np.einsum("nij,ni->nj", turn, offset[:, :2]))
  assert (shift <= np.array([1.0, 2.0]) + 1e-4).all()
  assert (shift.max(axis=0) > 0.8 * np.array([1.0, 2.0])).all()
  angles = np.degrees(np.arctan2(turn[:, 1, 0], turn[:, 0, 0]))
  assert 13 < np.abs(angles).max() <= 15 + 1e-3
