"""Changes of intensities: what is neutral costs nothing, and noise comes to its share alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.augment.intensity import change_intensity
from attn_unet_jax.augment.options import Augmentation

IMAGE = jnp.arange(24.0).reshape(2, 3, 4)
KEYS = jax.random.split(jax.random.key(0), 60)


def _trace(**options):
  change = jax.make_jaxpr(lambda key, image: change_intensity(key, image, Augmentation(**options)))
  return change(KEYS[0], IMAGE).jaxpr


def test_what_is_neutral_leaves_the_image_itself():
  program = _trace()
  assert program.outvars == program.invars[1:]


def test_nothing_is_drawn_for_noise_that_every_image_gets():
  always, seldom = (_trace(noise_sd=(0.1, 0.1), noise_probability=share) for share in (1.0, 0.5))
  assert len(always.eqns) < len(seldom.eqns)


@pytest.mark.parametrize("ends", [(0.0, 0.5), (0.5, 0.5), (-1.0, 0.0)])
def test_the_shift_lies_between_its_ends(ends):
  options = Augmentation(intensity_shift=ends)
  shifted = jax.vmap(lambda key: change_intensity(key, IMAGE, options))(KEYS)
  shifts = np.asarray(shifted - IMAGE).reshape(len(KEYS), -1)
  np.testing.assert_allclose(shifts, shifts[:, :1] + np.zeros(24), atol=1e-5)
  assert shifts.min() >= ends[0] - 1e-5
  assert shifts.max() <= ends[1] + 1e-5
  assert np.ptp(shifts) > 0.8 * (ends[1] - ends[0]) - 1e-5


@pytest.mark.parametrize("ends", [(0.0, 0.5), (0.5, 0.5), (1.0, 1.0)])
def test_the_sd_of_noise_lies_between_its_ends_and_is_0_for_the_rest(ends):
  options = Augmentation(noise_sd=ends, noise_probability=0.5)
  image = jnp.zeros((8, 8, 8))
  noisy = jax.vmap(lambda key: change_intensity(key, image, options))(KEYS)
  sds = np.asarray(noisy).std((1, 2, 3))
  assert 0.25 < (sds > 0).mean() < 0.75
  assert sds.max() <= 1.1 * ends[1]
  assert sds[sds > 0].min() >= 0.9 * ends[0]


def test_which_images_get_noise_is_drawn_by_a_key_of_its_own_that_stays():
  # A run that goes on by a newer version must draw what it would have drawn.
  options = Augmentation(noise_sd=(1.0, 1.0), noise_probability=0.5)
  noisy = jax.vmap(lambda key: change_intensity(key, IMAGE, options))(KEYS)
  sd_keys = jax.vmap(lambda key: jax.random.fold_in(jax.random.split(key, 4)[2], 1))(KEYS)
  expected = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5))(sd_keys)
  np.testing.assert_array_equal((noisy != IMAGE).any((1, 2, 3)), expected)
