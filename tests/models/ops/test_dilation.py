import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.models.ops.conv import conv3d
from attn_unet_jax.models.ops.dilation import convolve_dilated


@pytest.mark.parametrize("rate", [1, 2, 3])
def test_dilated_convolution_against_xlas(rate):
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, 7, 4, 6, 2)), jnp.float32)  # no multiple of the rates
  kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 2, 3)), jnp.float32)
  expected = jax.lax.conv_general_dilated(
    x,
    kernel,
    (1, 1, 1),
    "SAME",
    rhs_dilation=(rate,) * 3,
    dimension_numbers=("NXYZC", "XYZIO", "NXYZC"),
  )
  np.testing.assert_allclose(
    convolve_dilated(lambda y: conv3d(y, kernel, form="native"), x, rate), expected, atol=1e-5
  )
