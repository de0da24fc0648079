"""The random gamma curve: a power between an image's extremes, drawn from its range."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.augment.gamma import apply_gamma, bend_by_gamma, bend_inverted_by_gamma
from attn_unet_jax.augment.options import GammaOptions

KEYS = jax.random.split(jax.random.key(0), 300)
IMAGE = jnp.array([0.0, 0.25, 0.5, 1.0]).reshape(1, 2, 2)


def test_all_voxels_are_bent_by_one_power_of_the_range():
  bent = np.asarray(jax.jit(jax.vmap(apply_gamma, in_axes=(0, None)))(KEYS, IMAGE)).reshape(-1, 4)
  np.testing.assert_array_equal(bent[:, [0, 3]], np.tile([0.0, 1.0], (300, 1)))
  power = np.log(bent[:, 2]) / np.log(0.5)
  np.testing.assert_allclose(bent[:, 1], bent[:, 2] ** 2, rtol=1e-5)
  assert 0.7 - 1e-5 <= power.min() < 0.72
  assert 1.48 < power.max() <= 1.5 + 1e-5
  assert abs(power.mean() - 1.1) < 0.05


def test_scale_and_shift_of_the_image_do_not_matter():
  bent = apply_gamma(KEYS[0], IMAGE)
  assert not np.allclose(bent, IMAGE, atol=1e-3)
  np.testing.assert_allclose(apply_gamma(KEYS[0], 3 * IMAGE - 5), 3 * bent - 5, atol=1e-5)


def test_a_constant_image_stays_as_it_is():
  constant = jnp.full((2, 2, 2), -0.75)
  np.testing.assert_array_equal(apply_gamma(KEYS[0], constant), constant)


@pytest.mark.parametrize("bend", [bend_by_gamma, bend_inverted_by_gamma])
def test_the_curve_of_nnunet_keeps_mean_and_sd(bend):
  image = jnp.array(np.random.default_rng(0).uniform(0, 1, (5, 6, 7)), jnp.float32)
  bent = bend(KEYS[0], image, GammaOptions())
  assert float(jnp.abs(bent - image).max()) > 0.01
  assert float(bent.mean()) == pytest.approx(float(image.mean()), abs=1e-5)
  assert float(bent.std()) == pytest.approx(float(image.std()), rel=1e-4)


def test_its_power_is_that_of_the_range_and_inverted_it_bends_the_other_end():
  options = GammaOptions(gamma_range=(2.0, 2.0))
  square = np.array([0.0, 0.0625, 0.25, 1.0])
  for bend, expected in ((bend_by_gamma, square), (bend_inverted_by_gamma, 1 - square[::-1])):
    image = IMAGE if bend is bend_by_gamma else 1 - IMAGE[:, ::-1, ::-1]
    bent = np.asarray(bend(KEYS[0], image, options)).ravel()
    scaled = (expected - expected.mean()) / expected.std() * float(image.std()) + float(
      image.mean()
    )
    np.testing.assert_allclose(bent, scaled, atol=1e-5)


@pytest.mark.parametrize("bend", [bend_by_gamma, bend_inverted_by_gamma])
def test_the_curve_of_nnunet_leaves_a_constant_image(bend):
  constant = jnp.full((2, 2, 2), -0.75)
  np.testing.assert_allclose(bend(KEYS[0], constant, GammaOptions()), constant, atol=1e-6)
