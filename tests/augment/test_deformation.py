"""The displacement field against SciPy's splines, and what it does to image and label."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import BSpline

from attn_unet_jax.augment import deformation, patch, warp
from attn_unet_jax.augment.deformation import spline_basis
from attn_unet_jax.augment.options import Augmentation

PATCH = (20, 16, 12)
STRONG = Augmentation(deform_sd=(2.0, 1.0, 0.0), deform_spacing=8.0)
KEYS = jax.random.split(jax.random.key(1), 300)


@pytest.fixture(scope="module")
def fields():
  draw = jax.jit(jax.vmap(lambda key: deformation.draw_displacement(key, PATCH, STRONG)))
  return np.asarray(draw(KEYS))


@pytest.mark.parametrize(
  ("size", "spacing", "intervals"),
  [(20, 8.0, 3), (18, 8.0, 3), (17, 8.0, 2), (5, 32.0, 1), (1, 4.0, 1)],
)
def test_the_basis_is_scipys(size, spacing, intervals):
  """Over as few intervals as hold the voxels."""
  basis = spline_basis(size, spacing)
  knots = (np.arange(intervals + 7) - 3 - intervals / 2) * spacing + (size - 1) / 2
  assert knots[3] <= 0
  assert knots[-4] >= size - 1
  expected = BSpline.design_matrix(np.arange(size, dtype=float), knots, 3).toarray()
  np.testing.assert_allclose(basis, expected, atol=1e-12)


def test_the_field_has_the_sd_that_was_asked_for(fields):
  sd = fields.std(axis=(0, 2, 3, 4))
  np.testing.assert_allclose(sd[:2], [2.0, 1.0], rtol=0.06)
  assert sd[2] == 0
  assert np.abs(fields).max() <= 3 * 2.0


def test_the_field_is_smooth(fields):
  """Neighbours one voxel apart differ little: the control points are eight apart."""
  for axis in (2, 3, 4):
    steps = np.diff(fields[:, 0], axis=axis - 1)
    assert steps.std() < 0.35 * 2.0


def test_how_often_it_applies():
  half = Augmentation(deform_sd=(1.0, 1.0, 1.0), deform_probability=0.5)
  draw = jax.jit(jax.vmap(lambda key: deformation.draw_displacement(key, (4, 4, 4), half)))
  moved = np.asarray(draw(KEYS)).any(axis=(1, 2, 3, 4)).mean()
  assert 0.4 < moved < 0.6
  assert not Augmentation(deform_sd=(1.0, 1.0, 1.0), deform_probability=0.0).warps


def test_a_constant_displacement_is_a_shift():
  volume = jnp.arange(10 * 8 * 6, dtype=jnp.float32).reshape(10, 8, 6)
  moved = jnp.array([2.0, -1.0, 0.0]).reshape(3, 1, 1, 1) * jnp.ones((3, 4, 4, 4))
  out = warp.warp_block(volume, jnp.eye(3, 4), (4, 4, 4), displacement=moved)
  np.testing.assert_array_equal(out, volume[5:9, 1:5, 1:5])


def test_the_label_goes_with_its_image_and_nothing_is_invented():
  block = patch.source_shape(PATCH, STRONG)
  assert block == (20 + 2 * 6, 16 + 2 * 3, 12)
  x, y, z = np.meshgrid(*(np.arange(n) for n in block), indexing="ij")
  label = jnp.asarray((x // 3 + y // 3 + z // 3) % 2, jnp.uint8)
  deform = jax.jit(lambda key: patch.augment_patch(key, label * 1.0, label, PATCH, STRONG))
  for key in KEYS[:5]:
    image, moved = deform(key)
    still = np.asarray(label)[6:-6, 3:-3]
    assert (np.asarray(moved) != still).mean() > 0.1
    sure = np.abs(np.asarray(image) - 0.5) > 0.45  # hardly mixed by the interpolation
    assert sure.any()
    np.testing.assert_array_equal(np.asarray(moved)[sure], np.asarray(image)[sure] > 0.5)


def test_spacing_is_checked():
  with pytest.raises(ValueError, match="deform_spacing=0"):
    Augmentation(deform_spacing=0.0)
  with pytest.raises(ValueError, match="deform_sd"):
    Augmentation(deform_sd=(1.0, 1.0))
