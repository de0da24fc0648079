"""The blur, by SciPy's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from attn_unet_jax.augment.blur import blur_image
from attn_unet_jax.augment.options import BlurOptions

IMAGE = np.random.default_rng(0).normal(size=(9, 7, 5)).astype(np.float32)
BLUR = jax.jit(blur_image, static_argnums=2)


@pytest.mark.parametrize("sd", [0.6, 1.3])
def test_it_is_a_gaussian_of_the_drawn_sd_with_the_border_repeated(sd):
  found = BLUR(jax.random.key(0), jnp.array(IMAGE), BlurOptions(blur_sd=(sd, sd)))
  expected = ndimage.gaussian_filter(IMAGE, sd, mode="nearest", radius=int(np.ceil(4 * sd)))
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_other_keys_draw_other_sds_within_the_range():
  options = BlurOptions(blur_sd=(0.5, 1.0))
  keys = jax.random.split(jax.random.key(1), 20)
  left = [np.asarray(BLUR(key, jnp.array(IMAGE), options)).std() for key in keys]
  ends = [ndimage.gaussian_filter(IMAGE, sd, mode="nearest").std() for sd in (0.5, 1.0)]
  assert ends[1] - 1e-3 < min(left) < max(left) < ends[0] + 1e-3
  assert max(left) - min(left) > 0.5 * (ends[0] - ends[1])


def test_a_sd_of_0_changes_nothing():
  found = BLUR(jax.random.key(0), jnp.array(IMAGE), BlurOptions(blur_sd=(0.0, 0.0)))
  np.testing.assert_allclose(found, IMAGE, atol=1e-6)
