"""Blur, slices, fat and tone: what they do to signals whose answer is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from attn_unet_jax.painting.fat import share_of_fat
from attn_unet_jax.painting.resolution import (
  gaussian_operator,
  multiply_operators,
  remaining_sd,
  slice_operator,
)
from attn_unet_jax.painting.texture import apply_along_axes, draw_fields
from attn_unet_jax.painting.tone import HIGH_HU, LOW_HU, bend_tone


def test_the_gaussian_is_that_of_scipy_within_a_volume():
  impulse = np.zeros((15, 15, 15), np.float32)
  impulse[7, 7, 7] = 1
  sds = (0.8, 1.1, 1.6)
  found = apply_along_axes([gaussian_operator(15, sd) for sd in sds], jnp.asarray(impulse))
  np.testing.assert_allclose(found, ndimage.gaussian_filter(impulse, sds, truncate=9), atol=1e-4)


def test_a_gaussian_of_no_width_changes_nothing():
  np.testing.assert_allclose(gaussian_operator(9, 0.0), np.eye(9), atol=1e-7)


@pytest.mark.parametrize("thickness", [0.4, 1.0, 2.7])
def test_slices_keep_constants_and_slopes(thickness):
  for phase in (0.0, 0.3, 0.99):
    operator = np.asarray(slice_operator(24, jnp.float32(thickness), jnp.float32(phase), 0.4))
    np.testing.assert_allclose(operator.sum(1), 1, atol=1e-5)
    slope = operator @ np.arange(24)
    # Of voxels that are constant within themselves; those near the ends lack a neighbour.
    np.testing.assert_allclose(slope[4:-4], np.arange(24)[4:-4], atol=0.5)


def test_a_slice_holds_the_mean_over_its_thickness():
  operator = np.asarray(slice_operator(12, jnp.float32(3.0), jnp.float32(1 / 3), 1.0))
  # Middles at 1, 4, 7, 10: voxels 0 to 2, 3 to 5 and so on.
  values = np.random.default_rng(0).normal(size=12)
  seen = operator @ values
  for middle in (1, 4, 7, 10):
    assert seen[middle] == pytest.approx(values[middle - 1 : middle + 2].mean(), abs=1e-5)
  assert seen[5] == pytest.approx((2 * seen[4] + seen[7]) / 3, abs=1e-5)


def test_what_is_left_of_noise_is_predicted():
  operators = [gaussian_operator(20, 1.0), slice_operator(20, jnp.float32(2.5), jnp.float32(0), 1)]
  operator = multiply_operators(*operators)
  white = np.random.default_rng(0).normal(size=(20, 4000))
  assert remaining_sd(operator) == pytest.approx((np.asarray(operator) @ white).std(), rel=0.03)


def test_fields_have_variance_one_and_their_length():
  draw = jax.jit(jax.vmap(lambda key: jnp.stack(draw_fields(key, (16, 16, 16), (8.0, 2.0)))))
  fields = np.asarray(draw(jax.random.split(jax.random.key(0), 60)))
  assert fields.mean((0, 2, 3, 4)) == pytest.approx([0, 0, 0], abs=0.12)
  assert fields.var((0, 2, 3, 4)) == pytest.approx([1, 1, 1], rel=0.12)
  slow, fine, white = ((fields[:, i, 1:] * fields[:, i, :-1]).mean() for i in range(3))
  assert slow > 0.95
  assert 0.5 < fine < 0.95
  assert abs(white) < 0.02
  other = np.corrcoef(fields.transpose(1, 0, 2, 3, 4).reshape(3, -1))
  assert np.abs(other - np.eye(3)).max() < 0.1


@pytest.mark.parametrize("fraction", [0.0, 0.05, 0.3, 0.6])
def test_the_share_of_fat_is_the_fraction_asked_for(fraction):
  field = np.random.default_rng(0).normal(size=40_000).astype(np.float32)
  share = np.asarray(share_of_fat(jnp.asarray(field), jnp.float32(fraction)))
  assert 0 <= share.min() <= share.max() <= 1
  assert share.mean() == pytest.approx(fraction, abs=0.02)
  assert share.std() > 0 if fraction else not share.any()


def test_tone_keeps_the_order_and_the_ends_of_the_bent_range():
  hu = jnp.linspace(-1000, 1500, 2001)
  np.testing.assert_allclose(bend_tone(hu, 1.0, 1.0), hu, atol=1e-3)
  for gamma, contrast in ((0.8, 0.85), (1.25, 1.15)):
    assert (np.diff(bend_tone(hu, gamma, contrast)) > 0).all()
  ends = jnp.array([LOW_HU, HIGH_HU, 40.0])
  np.testing.assert_allclose(bend_tone(ends, 1.25, 1.0)[:2], ends[:2], atol=1e-3)
  assert bend_tone(ends, 1.25, 1.0)[2] < 40
  assert bend_tone(ends, 1.0, 0.5)[2] == 40
  assert bend_tone(ends, 1.0, 0.5)[1] == 170
