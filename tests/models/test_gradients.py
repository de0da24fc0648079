"""Gradients of networks whose own tests check none, or not all, and the same without compiling.

Reverse and forward mode in float64, in the native form of the convolution: the others have a
custom_vjp, see `test_conv.py`. 3D U-Net, V-Net, Dense V-Net and the nested network are in
`test_unet3d.py`, `test_vnet.py`, `test_dense_vnet.py` and `test_hnn.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from attn_unet_jax import models

PATCH = (16, 16, 16)
DENSE = {"dilation_rates": ((1, 2),), "prior_size": 2, "channels_kept": 1.0}
SMALL = [
  pytest.param("dense_dilated", {"feature_scale": 8.0, **DENSE}, id="dense_dilated"),
  *(
    pytest.param(name, {"feature_scale": scale}, id=name, marks=pytest.mark.slow)
    for name, scale in {
      "attention_unet": 64.0,
      "dual_attention": 64.0,
      "unet": 64.0,
      "vnet_caffe": 16.0,
    }.items()
  ),
]


@pytest.fixture(scope="module", autouse=True)
def _double_precision():
  with jax.enable_x64(True):
    yield


def loss_of(name, options):
  """A smooth scalar of the training pass in the parameters, and parameters to take it at."""
  network = models.build(name, conv="native", dtype=jnp.float64, **options)
  rng = np.random.default_rng(1)
  x = jnp.asarray(rng.normal(size=(2, *PATCH, 1)))

  def draw(path, a):
    kind = path[-1].key
    means = {"scale": 1.0, "var": 1.0, "prior": 1.0, "slope": 0.25}
    sd = np.sqrt(2 / np.prod(a.shape[:-1])) if kind.endswith("kernel") else 0.1
    return jnp.asarray(means.get(kind, 0.0) + sd * rng.normal(size=a.shape))

  shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, False), x)
  variables = jax.tree_util.tree_map_with_path(draw, shapes)

  def loss(params):
    state = {**variables, "params": params}
    (logits, _), _ = network.apply(state, x, True, mutable=["batch_stats"])
    return jnp.mean(jax.nn.softmax(logits)[..., 1] * jnp.sin(jnp.arange(float(PATCH[2]))))

  return loss, variables["params"]


@pytest.mark.parametrize(("name", "options"), SMALL)
def test_gradients_and_no_jit(name, options):
  loss, params = loss_of(name, options)
  both = jax.jit(jax.value_and_grad(loss))  # one program for values and gradients
  ready = jax.custom_vjp(lambda params: both(params)[0])
  ready.defvjp(both, lambda gradient, g: (jax.tree.map(lambda a: g * a, gradient),))
  # Short steps: longer ones cross kinks of the ReLUs and poolings.
  check_grads(ready, (params,), order=1, modes=["rev"], eps=1e-8)
  check_grads(jax.jit(loss), (params,), order=1, modes=["fwd"], eps=1e-8)
  np.testing.assert_allclose(loss(params), both(params)[0], rtol=1e-9)
