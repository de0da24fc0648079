"""3D U-Net: count and shapes of the paper, crops, statistics at test time, gradients."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from attn_unet_jax.models import build
from attn_unet_jax.models.unet3d import UNet3D, crop_centre
from tests import networks


def abstract(network, shape, **options):
  """Shapes of variables and of what applying gives, without a computation."""
  x = jax.ShapeDtypeStruct(shape, jnp.float32)
  variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, False), x)
  return variables, jax.eval_shape(lambda v, x: network.apply(v, x, False, **options), variables, x)


def drawn(network, shape, dtype=np.float32):
  """Variables drawn with NumPy, for compiling the initialisers costs more than the test."""
  rng = np.random.default_rng(1)

  def draw(path, a):
    kind = path[-1].key
    means = {"kernel": 0.0, "scale": 1.0, "bias": 0.1, "mean": 0.0, "var": 1.0}
    sd = math.sqrt(2 / math.prod(a.shape[:-1])) if kind == "kernel" else 0.02
    return jnp.asarray(means[kind] + sd * rng.normal(size=a.shape), dtype)

  return jax.tree_util.tree_map_with_path(draw, abstract(network, shape)[0])


def noise(*shape):
  return jnp.asarray(np.random.default_rng(0).normal(size=shape))


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
def test_number_of_parameters_is_the_papers(padding):
  """Three channels in and out; batch normalisation's scale and shift are not counted."""
  network = networks.build("unet3d", num_classes=3, feature_scale=1.0, padding=padding)
  variables, _ = abstract(network, (1, *build.nearest_patch(network, (1, 1, 1)), 3))
  leaves = jax.tree_util.tree_leaves_with_path(variables["params"])
  counted = [a for path, a in leaves if "BatchNorm" not in jax.tree_util.keystr(path)]
  assert sum(math.prod(a.shape) for a in counted) == 19_069_955
  assert sum(path[-1].key == "scale" for path, _ in leaves) == 14


def test_shapes_of_the_paper():
  """132x132x116 in, 44x44x28 out; skips lose 4, 16 and 40 voxels a side, coarse to fine."""
  network = UNet3D(num_classes=3)
  _, ((logits, out), kept) = abstract(
    network, (1, 132, 132, 116, 3), capture_intermediates=True, mutable=["intermediates"]
  )
  trace = kept["intermediates"]
  assert logits.shape == (1, 44, 44, 28, 3)
  assert out == {"gates": {}}
  encoder = [trace[f"encoder{level}"]["__call__"][0].shape for level in (1, 2, 3, 4)]
  assert encoder == [
    (1, 128, 128, 112, 64), (1, 60, 60, 52, 128), (1, 26, 26, 22, 256), (1, 9, 9, 7, 512)
  ]  # fmt: skip
  for level, crop in ((3, 4), (2, 16), (1, 40)):
    up = trace[f"up{level}"]["__call__"][0].shape
    skip = encoder[level - 1]
    assert [(a - b) / 2 for a, b in zip(skip[1:4], up[1:4], strict=True)] == [crop] * 3
    assert up[-1] == (512, 256, 128)[3 - level]
  assert network.output_margin == (44, 44, 44)


@pytest.mark.parametrize(
  ("padding", "patch", "nearest"),
  [
    ("VALID", (132, 132, 116), (132, 132, 116)),
    ("VALID", (127, 97, 1), (124, 100, 92)),
    ("SAME", (132, 128, 1), (128, 128, 8)),
  ],
)
def test_nearest_patch_is_one_that_the_network_takes(padding, patch, nearest):
  network = networks.build("unet3d", padding=padding)
  assert build.nearest_patch(network, patch) == nearest
  _, (logits, _) = abstract(network, (1, *nearest, 1))
  margin = network.output_margin
  assert logits.shape[1:4] == tuple(n - 2 * m for n, m in zip(nearest, margin, strict=True))


@pytest.mark.parametrize(("padding", "size"), [("VALID", 84), ("VALID", 96), ("SAME", 12)])
def test_other_patches_are_refused(padding, size):
  with pytest.raises(ValueError, match="each size must be"):
    abstract(UNet3D(padding=padding), (1, size, size, size, 1))


def test_centre_by_hand():
  x = jnp.arange(7 * 6 * 4).reshape(1, 7, 6, 4, 1)
  np.testing.assert_array_equal(crop_centre(x, (3, 2, 4)), x[:, 2:5, 2:4])


@pytest.mark.slow
def test_padded_and_unpadded_agree_where_padding_does_not_reach():
  """Every crop in place: the same parameters, and 92 voxels that lie on the 96's pooling grid."""
  padded, unpadded = (UNet3D(feature_scale=64, padding=p, conv="planes") for p in ("SAME", "VALID"))
  variables = drawn(padded, (1, 8, 8, 8, 1))
  x = noise(1, 96, 96, 96, 1).astype(jnp.float32)
  whole, _ = jax.jit(padded.apply, static_argnums=2)(variables, x, False)
  inner, _ = jax.jit(unpadded.apply, static_argnums=2)(variables, x[:, 2:94, 2:94, 2:94], False)
  assert inner.shape == (1, 4, 4, 4, 2)
  np.testing.assert_allclose(inner, whole[:, 46:50, 46:50, 46:50], atol=2e-5)
  assert inner.std() > 1e-3


def test_statistics_of_the_batch_at_test_time():
  """What training gives, though nothing may be written."""
  options = {"feature_scale": 64, "padding": "SAME", "conv": "native"}
  x = noise(1, 16, 8, 8, 1).astype(jnp.float32)
  network = UNet3D(**options, test_statistics="batch")
  variables = drawn(network, x.shape)
  apply = functools.partial(jax.jit, static_argnums=2)
  train = functools.partial(network.apply, mutable=["batch_stats"])
  (trained, _), _ = apply(train)(variables, x, True)
  tested, _ = apply(network.apply)(variables, x, False)
  np.testing.assert_allclose(tested, trained, atol=1e-5)
  running, _ = apply(UNet3D(**options).apply)(variables, x, False)
  assert jnp.abs(running - trained).max() > 1e-2


@pytest.fixture(scope="module")
def loss():
  """A smooth scalar of a small network in training, and parameters to take it at; float64."""
  with jax.enable_x64(True):
    network = UNet3D(feature_scale=64, padding="SAME", conv="native", dtype=jnp.float64)
    x = noise(2, 8, 8, 8, 1)
    variables = drawn(network, x.shape, np.float64)

    def of(params):
      state = variables | {"params": params}
      (logits, _), _ = network.apply(state, x, True, mutable=["batch_stats"])
      return jnp.mean(jax.nn.softmax(logits)[..., 1] * jnp.sin(jnp.arange(8.0)))

    yield of, variables["params"]


def test_gradients(loss):
  """Reverse mode; one program gives values and gradients, for compiling is all the cost."""
  of, params = loss
  both = jax.jit(jax.value_and_grad(of))
  ready = jax.custom_vjp(lambda params: both(params)[0])
  ready.defvjp(both, lambda gradient, g: (jax.tree.map(lambda a: g * a, gradient),))
  # Short steps: longer ones cross kinks of the ReLUs and poolings.
  check_grads(ready, (params,), order=1, modes=["rev"], eps=1e-7)


@pytest.mark.slow
def test_forward_gradients_and_no_jit(loss):
  of, params = loss
  compiled = jax.jit(of)
  np.testing.assert_allclose(of(params), compiled(params), rtol=1e-9)
  check_grads(compiled, (params,), order=1, modes=["fwd"], eps=1e-7)
