import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from attn_unet_jax.models.upconv import UpConv


@pytest.fixture(scope="module")
def made():
  x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 2, 3, 1, 16)), jnp.float32)
  module = UpConv(12)
  return module, jax.jit(module.init)(jax.random.key(0, impl="rbg"), x), x


def test_against_the_dilated_convolution(made):
  module, variables, x = made
  params = variables["params"] | {"bias": jnp.arange(12.0)}
  layout = ("NXYZC", "XYZIO", "NXYZC")
  flipped = jnp.flip(params["kernel"], (0, 1, 2))  # a correlation of the dilated input
  expected = lax.conv_general_dilated(
    x, flipped, (1, 1, 1), [(1, 1)] * 3, lhs_dilation=(2, 2, 2), dimension_numbers=layout
  )
  ours = module.apply({"params": params}, x)
  assert ours.shape == (2, 4, 6, 2, 12)
  np.testing.assert_allclose(ours, expected + params["bias"], atol=1e-5)


def test_places_by_hand(made):
  _, _, x = made
  module = UpConv(1, use_bias=False)
  kernel = jnp.arange(8.0).reshape(2, 2, 2, 1, 1)
  y = module.apply({"params": {"kernel": kernel}}, x[:1, :1, :1, :1, :1])
  np.testing.assert_allclose(y[0, ..., 0], x[0, 0, 0, 0, 0] * np.arange(8).reshape(2, 2, 2))


def test_the_start_has_the_fan_of_one_product(made):
  _, variables, _ = made
  assert variables["params"]["kernel"].std() == pytest.approx(np.sqrt(2 / 16), rel=0.1)
  assert not variables["params"]["bias"].any()


def test_gradients(made):
  _, variables, x = made
  with jax.enable_x64(True):
    wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (variables, x))
    apply = jax.jit(UpConv(12, form="native", dtype=jnp.float64).apply)
    check_grads(apply, wide, order=1, modes=["fwd", "rev"])
