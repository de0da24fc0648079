"""Contrast and brightness: one factor for an image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.augment.brightness import change_brightness
from attn_unet_jax.augment.contrast import change_contrast
from attn_unet_jax.augment.options import BrightnessOptions, ContrastOptions

IMAGE = np.random.default_rng(0).uniform(0, 1, (4, 5, 6)).astype(np.float32)
KEY = jax.random.key(0)


@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_contrast_is_the_distance_from_the_mean_within_the_extremes(factor):
  options = ContrastOptions(contrast_factor=(factor, factor))
  found = change_contrast(KEY, jnp.array(IMAGE), options)
  free = IMAGE.mean() + factor * (IMAGE - IMAGE.mean())
  np.testing.assert_allclose(found, np.clip(free, IMAGE.min(), IMAGE.max()), atol=1e-6)


def test_brightness_is_one_factor():
  ratio = change_brightness(KEY, jnp.array(IMAGE), BrightnessOptions()) / IMAGE
  np.testing.assert_allclose(ratio, np.full_like(IMAGE, ratio[0, 0, 0]), rtol=1e-5)
  assert 0.75 <= ratio[0, 0, 0] <= 1.25
  assert ratio[0, 0, 0] != 1


def test_the_factor_of_contrast_is_within_a_quarter_of_1():
  place = np.unravel_index(np.abs(IMAGE - IMAGE.mean()).argmin(), IMAGE.shape)  # is not clipped
  change = jax.vmap(lambda key: change_contrast(key, jnp.array(IMAGE), ContrastOptions())[place])
  changed = np.asarray(change(jax.random.split(KEY, 200)), np.float64)
  mean = IMAGE.mean(dtype=np.float64)
  factors = (changed - mean) / (IMAGE[place] - mean)
  assert 0.74 < factors.min() < 0.8
  assert 1.2 < factors.max() < 1.26
