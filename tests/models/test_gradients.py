"""Gradients of networks whose own tests check none, or not all, and the same without compiling.

Reverse and forward mode in float64, in the native form of the convolution: the others have a
custom_vjp, see `test_conv.py`. 3D U-Net, V-Net, Dense V-Net without dropout and one view of the
nested network are in `test_unet3d.py`, `test_vnet.py`, `test_dense_vnet.py` and `test_hnn.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tests import networks

PATCH = (16, 16, 16)
DENSE = {"dilation_rates": ((1, 2),), "prior_size": 2, "channels_kept": 1.0}
# A layer of the first stack gives one of its two channels; which, is the same at every call.
DROPPED = {"dilation_rates": ((1, 1), (1,)), "prior_size": 2, "channels_kept": 0.5}
GATES = {"gating": "shared", "gate": "softmax", "gate_finest": True}


def slow(name, scale, title=None, mark=pytest.mark.slow, **options):
  return pytest.param(name, {"feature_scale": scale, **options}, id=title or name, marks=mark)


def soak(name, scale, title=None, **options):
  return slow(name, scale, title, pytest.mark.soak, **options)


SMALL = [
  slow("dense_dilated", 8.0, **DENSE),
  slow("dense_vnet", 2.0, title="dense_vnet_dropping", **DROPPED),
  # A shorter test of each is here, in its own file, or, of gates, in test_gates.py.
  *(soak("attention_unet", 64.0), soak("dual_attention", 64.0), soak("unet", 64.0)),
  *(soak("vnet_caffe", 16.0), soak("hnn", 64.0, trunk_norm="group")),
  soak("attention_unet", 64.0, title="attention_unet_shared_softmax_finest", **GATES),
]


pytestmark = pytest.mark.usefixtures("double_precision_throughout")


def loss_of(name, options):
  """A smooth scalar of the training pass in the parameters, and parameters to take it at."""
  network = networks.build_native(name, dtype=jnp.float64, **options)
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
    rngs = {"dropout": jax.random.key(1)}
    (logits, out), _ = network.apply(state, x, True, mutable=["batch_stats"], rngs=rngs)
    # No gradient goes through the nested network's logits: it is trained by its sides' maps.
    sides = [jax.nn.sigmoid(maps) for maps in out.get("side_logits", {}).values()]
    weights = jnp.sin(jnp.arange(float(PATCH[2])))[:, None]
    return sum(jnp.mean(p * weights) for p in sides or [jax.nn.softmax(logits)[..., 1:]])

  return loss, variables["params"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scale"), [("unet", 64.0), ("vnet_caffe", 16.0)])
def test_a_small_instance_along_a_direction(name, scale):
  """CI's one instance of these: forward, and reverse mode against a difference."""
  loss, params = loss_of(name, {"feature_scale": scale})
  both = jax.jit(jax.value_and_grad(loss))
  value, gradient = both(params)
  rng = np.random.default_rng(2)
  way = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), params)
  step = 1e-8  # a longer one crosses kinks of the ReLUs and poolings
  ends = [
    both(jax.tree.map(lambda p, d, s=sign: p + s * step * d, params, way))[0] for sign in (1, -1)
  ]
  slope = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (gradient, way)), strict=True))
  assert 1e-6 < abs(float(value)) < 1
  np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step), slope, rtol=1e-3)


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
