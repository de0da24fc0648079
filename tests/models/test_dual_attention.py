import math
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from attn_unet_jax.models import dual_attention
from attn_unet_jax.models.dual_attention import DualAttention
from attn_unet_jax.models.ops.resize import interpolation_matrix, max_pool, upsample
from tests import networks
from tests.conftest import draw

JOININGS = ("product", "max", "mean")


pytestmark = pytest.mark.usefixtures("double_precision_throughout")


X, G = (2, 4, 2, 4, 3), (2, 2, 1, 2, 6)


def ready(module, *inputs, low=-1.0):
  """Variables drawn with NumPy, none at a value that would hide a mistake."""
  shapes = jax.eval_shape(lambda *a: module.init(jax.random.key(0), *a, False), *inputs)
  rng = np.random.default_rng(3)

  def one(path, a):
    positive = path[-1].key in ("var", "scale")
    return jnp.asarray(rng.uniform(0.2 if positive else low, 1, a.shape) / (len(a.shape)))

  return jax.tree_util.tree_map_with_path(one, shapes)


def sigmoid(z):
  return 1 / (1 + np.exp(-np.asarray(z)))


def spatial_in_numpy(params, x, g, upsampling="align_corners"):
  """sigmoid(w . [x, trilinear(g)] + b), the interpolation made before the product."""
  for axis in (1, 2, 3):
    weights = interpolation_matrix(g.shape[axis], x.shape[axis], upsampling)
    g = np.moveaxis(np.tensordot(weights, g, (1, axis)), 0, axis)
  joined = np.concatenate([x, g], -1)
  return sigmoid(joined @ params["spatial_kernel"] + params["spatial_bias"])


@pytest.mark.parametrize(
  ("joining", "upsampling"),
  [*((joining, "align_corners") for joining in JOININGS), ("mean", "half_pixel")],
)
def test_attention_against_its_equation_in_numpy(joining, upsampling):
  x, g = draw(*X), draw(*G, seed=1)
  module = DualAttention(joining, upsampling=upsampling, dtype=jnp.float64)
  variables = ready(module, x, g)
  params = variables["params"]
  _, alpha = module.apply(variables, x, g, False)
  spatial = spatial_in_numpy(params, np.asarray(x), np.asarray(g), upsampling)
  pooled = np.concatenate([np.mean(x, (1, 2, 3)), np.mean(g, (1, 2, 3))], -1)
  channel = sigmoid(pooled @ params["channel_kernel"] + params["channel_bias"])
  channel = channel[:, None, None, None]
  join = {"product": np.multiply, "max": np.maximum, "mean": lambda a, b: (a + b) / 2}[joining]
  np.testing.assert_allclose(alpha, join(spatial, channel), atol=1e-12)
  assert 0 < alpha.min() < alpha.max() < 1


def test_without_weights_all_is_open_at_sigmoid_2_squared():
  x, g = draw(*X), draw(*G, seed=1)
  module = DualAttention(dtype=jnp.float64)
  variables = jax.jit(lambda x, g: module.init(jax.random.key(0), x, g, False))(x, g)
  params = dict(variables["params"])
  assert set(np.unique(params["spatial_bias"])) == set(np.unique(params["channel_bias"])) == {2.0}
  for name in ("spatial_kernel", "channel_kernel"):
    assert 0 < np.std(params[name]) < 0.3  # a tenth of sqrt(2 / 9), give or take
    params[name] = jnp.zeros_like(params[name])
  _, alpha = module.apply({**variables, "params": params}, x, g, False)
  np.testing.assert_allclose(alpha, sigmoid(2.0) ** 2, rtol=1e-12)


def test_without_the_channel_branch_it_is_a_linear_attention_gate():
  x, g = draw(*X), draw(*G, seed=1)
  module = DualAttention(dtype=jnp.float64)
  variables = ready(module, x, g)
  params = {**variables["params"], "channel_bias": jnp.full(3, 1e3)}
  out, alpha = module.apply({**variables, "params": params}, x, g, False)
  gate = spatial_in_numpy(params, np.asarray(x), np.asarray(g))
  np.testing.assert_allclose(alpha, np.broadcast_to(gate, x.shape), atol=1e-12)
  conv = params["output"]["Conv_0"]
  y = (gate * x) @ conv["kernel"][0, 0, 0] + conv["bias"]
  (norm,) = params["output"]["BatchNorm_0"].values()
  (running,) = variables["batch_stats"]["output"]["BatchNorm_0"].values()
  y = (y - running["mean"]) / np.sqrt(running["var"] + 1e-5) * norm["scale"] + norm["bias"]
  np.testing.assert_allclose(out, np.maximum(y, 0), atol=1e-12)


def test_no_gradient_reaches_a_closed_voxel():
  x, g = draw(*X).at[0, 1, 1, 2, 0].set(-100.0), draw(*G, seed=1)
  module = DualAttention(dtype=jnp.float64)
  variables = ready(module, x, g, low=0.2)  # a ReLU that is shut would hide the gradient
  kernel = jnp.zeros((9, 1)).at[0].set(1.0)  # closed where the first channel is far below 0
  params = {**variables["params"], "spatial_kernel": kernel, "channel_kernel": jnp.zeros((9, 3))}
  state = {**variables, "params": params}
  slope = jax.jit(jax.grad(lambda x: jnp.sum(module.apply(state, x, g, False)[0])))(x)
  assert jnp.abs(slope[0, 1, 1, 2]).max() < 1e-12
  assert jnp.abs(slope).max() > 1e-3


@pytest.mark.parametrize(("joining", "reduction"), [("product", 2), ("max", 0), ("mean", 0)])
def test_gradients_and_the_compiled_program(joining, reduction):
  x, g = draw(*X), draw(*G, seed=1)
  module = DualAttention(joining, reduction, dtype=jnp.float64)
  variables = ready(module, x, g)
  assert ("channel_reduced_kernel" in variables["params"]) == bool(reduction)

  def apply(params, x, g):
    state = {**variables, "params": params}
    (out, alpha), _ = module.apply(state, x, g, True, mutable=["batch_stats"])
    return out, alpha

  compiled = jax.jit(apply)
  arguments = (variables["params"], x, g)
  check_grads(compiled, arguments, order=1, modes=["fwd", "rev"])
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12),
    compiled(*arguments),
    apply(*arguments),
  )


def count(**options):
  network = networks.build("dual_attention", **options)
  x = jax.ShapeDtypeStruct((1, 16, 16, 16, 1), jnp.float32)
  params = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, False), x)["params"]
  return sum(math.prod(a.shape) for a in jax.tree.leaves(params))


def test_number_of_parameters():
  """By hand: what a level of C channels adds to the U-Net of 5,887,466."""
  widths = {1: 16, 2: 32, 3: 64, 4: 128}

  def attention(c):
    spatial, channel = (c + 2 * c) + 1, (c + 2 * c) * c + c
    return spatial + channel + (c * c + c + 2 * c)  # then 1x1x1 convolution, batch normalisation

  def parallel(level):
    others = sum(16 * c + 16 for other, c in widths.items() if other != level)
    return others + 3 * 16 * 27 * widths[level]  # and what the decoder's convolution takes in

  expected = 5_887_466 + sum(attention(widths[level]) + parallel(level) for level in (2, 3, 4))
  assert count(num_classes=2) == expected
  expected += attention(16) + parallel(1)
  assert count(num_classes=2, gate_finest=True) == expected
  raw = sum(attention(widths[level]) + 27 * widths[level] ** 2 for level in (2, 3, 4))
  assert count(num_classes=2, parallel_skips="own") == 5_887_466 + raw


def test_grids_and_channels_of_every_level():
  """Of 160x160x96, as the paper's; a decoder takes in its skip, three of 16, and what is below."""
  network = networks.build("dual_attention")
  x = jax.ShapeDtypeStruct((1, 160, 160, 96, 1), jnp.float32)
  variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, False), x)

  def traced(v, x):
    return network.apply(v, x, False, capture_intermediates=True, mutable=["intermediates"])

  (logits, out), kept = jax.eval_shape(traced, variables, x)
  trace, params = kept["intermediates"], variables["params"]
  widths = (16, 32, 64, 128, 256)
  for level, width in enumerate(widths, 1):
    grid = (1, *(n // 2 ** (level - 1) for n in (160, 160, 96)))
    name = "bottleneck" if level == 5 else f"encoder{level}"
    assert trace[name]["__call__"][0].shape == (*grid, width)
    if level == 5:
      continue
    assert trace[f"decoder{level}"]["__call__"][0].shape == (*grid, width)
    taken = params[f"decoder{level}"]["ConvNormRelu_0"]["Conv_0"]["kernel"].shape[-2]
    assert taken == width + (3 * 16 if level > 1 else 0) + widths[level]
    if level > 1:
      features, alpha = trace[f"skip{level}"]["__call__"][0]
      assert features.shape == alpha.shape == out["gates"][f"level{level}"].shape == (*grid, width)
  assert logits.shape == (1, 160, 160, 96, 2)


def test_other_levels_come_by_pooling_or_interpolated_as_asked_for(monkeypatch):
  """From the finer ones six, three and one times a halving; nothing shrinks by interpolation."""
  pooled, modes = [], []

  def pool(x):
    pooled.append(x.shape[1])
    return max_pool(x)

  def enlarge(x, shape, mode="align_corners"):
    modes.append(mode)
    assert x.shape[1] <= shape[0]
    return upsample(x, shape, mode)

  monkeypatch.setattr(dual_attention, "max_pool", pool)
  monkeypatch.setattr(dual_attention, "upsample", enlarge)
  network = networks.build("dual_attention", feature_scale=32, upsampling="half_pixel")
  x = jax.ShapeDtypeStruct((1, 32, 16, 16, 1), jnp.float32)
  jax.eval_shape(lambda x: network.init(jax.random.key(0), x, False), x)
  assert Counter(pooled) == {32: 3, 16: 4, 8: 3}
  assert modes == ["half_pixel"] * 12  # of three levels: the gating signal, and three others


@pytest.mark.slow
def test_the_networks_gradient_along_a_direction():
  """Reverse mode through a small instance against a difference."""
  network = networks.build("dual_attention", feature_scale=32, conv="native", dtype=jnp.float64)
  x = draw(1, 16, 16, 16, 1)
  variables = ready(network, x)

  def loss(params):
    state = {**variables, "params": params}
    (logits, out), _ = network.apply(state, x, True, mutable=["batch_stats"])
    return jnp.mean(jax.nn.softmax(logits)[..., 1] * jnp.sin(jnp.arange(16.0))), out["gates"]

  both = jax.jit(jax.value_and_grad(loss, has_aux=True))
  (_, gates), gradient = both(variables["params"])
  assert {name: a.shape for name, a in gates.items()} == {
    "level4": (1, 2, 2, 2, 16),
    "level3": (1, 4, 4, 4, 8),
    "level2": (1, 8, 8, 8, 4),
  }
  rng = np.random.default_rng(5)
  way = jax.tree.map(lambda a: jnp.asarray(rng.normal(size=a.shape)), gradient)
  step = 1e-8  # a longer one crosses kinks of the ReLUs and poolings
  ends = [
    both(jax.tree.map(lambda p, d, s=sign: p + s * step * d, variables["params"], way))[0][0]
    for sign in (1, -1)
  ]
  slope = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (gradient, way)), strict=True))
  np.testing.assert_allclose((ends[0] - ends[1]) / (2 * step), slope, rtol=1e-3)
