"""V-Net: counts and shapes of both topologies, the start, residual sums, gradients."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from attn_unet_jax.models import build
from attn_unet_jax.models.vnet import MsraConv, PReLU, VNet
from tests import networks


def abstract(network, patch=(16, 16, 16), **options):
  x = jax.ShapeDtypeStruct((1, *patch, 1), jnp.float32)
  variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, False), x)
  return variables, jax.eval_shape(lambda v, x: network.apply(v, x, False, **options), variables, x)


@pytest.mark.parametrize(("name", "number"), [("vnet", 65_171_858), ("vnet_caffe", 61_979_512)])
def test_number_of_parameters(name, number):
  """Two classes, the slopes of the PReLUs not counted."""
  network = networks.build(name, num_classes=2, feature_scale=1.0)
  variables, (logits, out) = abstract(network, (32, 16, 48))
  assert list(variables) == ["params"]
  leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
  assert sum(math.prod(a.shape) for path, a in leaves if path[-1].key != "slope") == number
  assert (logits.shape, logits.dtype, out) == ((1, 32, 16, 48, 2), jnp.float32, {"gates": {}})


@pytest.mark.parametrize(
  ("name", "left", "right"),
  [("vnet", (1, 2, 3, 3, 3), (3, 3, 2, 1)), ("vnet_caffe", (1, 1, 2, 3, 3), (3, 2, 1, 1))],
)
def test_convolutions_and_shapes_of_every_level(name, left, right):
  network = networks.build(name, feature_scale=1.0)
  variables, (_, kept) = abstract(
    network, (128, 128, 64), capture_intermediates=True, mutable=["intermediates"]
  )
  trace = {
    key: value["__call__"][0].shape
    for key, value in kept["intermediates"].items()
    if isinstance(value, dict)
  }
  widths = (16, 32, 64, 128, 256)
  for level, (count, width) in enumerate(zip(left, widths, strict=True), 1):
    half = 2 ** (level - 1)
    assert trace[f"left{level}"] == (1, 128 // half, 128 // half, 64 // half, width)
    assert _convolutions(variables["params"][f"left{level}"]) == count
  for level, count in zip((4, 3, 2, 1), right, strict=True):
    half = 2 ** (level - 1)
    assert trace[f"right{level}"] == (
      1,
      128 // half,
      128 // half,
      64 // half,
      2 * widths[level - 1],
    )
    assert trace[f"up{level}"][-1] == widths[level - 1]
    assert _convolutions(variables["params"][f"right{level}"]) == count


def _convolutions(params):
  kernels = [params[key]["kernel"].shape[:3] for key in params if key.startswith("conv")]
  assert set(kernels) == {(5, 5, 5)}
  return len(kernels)


def test_patch_that_cannot_be_halved_is_refused():
  with pytest.raises(ValueError, match=r"patch \(16, 24, 16\)"):
    abstract(VNet(), (16, 24, 16))
  assert build.nearest_patch(VNet(), (30, 41, 3)) == (32, 48, 16)


def test_the_start_is_caffes():
  """Variance 2 over the mean of fan-in and fan-out; bias 0; slope 0.25."""
  x = jnp.zeros((1, 4, 4, 4, 8))
  params = jax.jit(MsraConv(24, 5).init)(jax.random.key(0, impl="rbg"), x)["params"]
  assert params["kernel"].std() == pytest.approx(math.sqrt(2 / (125 * (8 + 24) / 2)), rel=0.02)
  assert not params["bias"].any()
  y, variables = PReLU().init_with_output(jax.random.key(0), jnp.array([[-4.0, 2.0]]))
  np.testing.assert_array_equal(variables["params"]["slope"], [0.25, 0.25])
  np.testing.assert_array_equal(y, [[-1.0, 2.0]])


@pytest.fixture(scope="module")
def tiny():
  """Float64, 1 to 16 channels, drawn with NumPy."""
  small = {"feature_scale": 8, "left": (1, 1, 1, 1, 2), "right": (1, 1, 1, 1), "conv": "native"}
  rng = np.random.default_rng(1)

  def draw(path, a):
    kind = path[-1].key
    sd = math.sqrt(2 / math.prod(a.shape[:-1])) if kind == "kernel" else 0.1
    return (0.25 if kind == "slope" else 0) + sd * rng.normal(size=a.shape)

  params = jax.tree_util.tree_map_with_path(draw, abstract(VNet(**small))[0]["params"])
  return VNet(**small, dtype=jnp.float64), params, rng.normal(size=(1, 16, 16, 16, 1))


def test_with_all_kernels_zero_the_sums_carry_the_image(tiny):
  """Residual sums alone: level 1 is the image on every channel, whose head's sum is the answer."""
  with jax.enable_x64(True):
    network, params, x = tiny
    params = jax.tree_util.tree_map_with_path(
      lambda path, a: jnp.ones(a.shape) if path[-1].key == "slope" else jnp.zeros(a.shape), params
    )
    params["head"]["kernel"] = jnp.ones((1, 1, 1, 4, 2))
    logits, _ = jax.jit(network.apply, static_argnums=2)({"params": params}, jnp.asarray(x), False)
    # Of the four channels of [up, skip] at the finest level, two are the skip's: the image.
    np.testing.assert_allclose(logits, 2 * jnp.broadcast_to(x, logits.shape), atol=1e-12)


def loss_of(tiny):
  network, params, x = tiny
  params, x = jax.tree.map(jnp.asarray, (params, x))

  def loss(params):
    logits, _ = network.apply({"params": params}, x, True)
    return jnp.mean(jax.nn.softmax(logits)[..., 1] * jnp.sin(jnp.arange(16.0)))

  return loss, params


@pytest.mark.slow
def test_gradients(tiny):
  """Reverse mode; one program gives values and gradients, for compiling is all the cost."""
  with jax.enable_x64(True):
    loss, params = loss_of(tiny)
    both = jax.jit(jax.value_and_grad(loss))
    ready = jax.custom_vjp(lambda params: both(params)[0])
    ready.defvjp(both, lambda gradient, g: (jax.tree.map(lambda a: g * a, gradient),))
    check_grads(ready, (params,), order=1, modes=["rev"], eps=1e-7)


@pytest.mark.slow
def test_forward_gradients_and_no_jit(tiny):
  with jax.enable_x64(True):
    loss, params = loss_of(tiny)
    compiled = jax.jit(loss)
    np.testing.assert_allclose(loss(params), compiled(params), rtol=1e-9)
    check_grads(compiled, (params,), order=1, modes=["fwd"], eps=1e-7)
