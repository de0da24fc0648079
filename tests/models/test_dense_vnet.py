import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from attn_unet_jax.models.dense_vnet import DenseStack, average_pool
from attn_unet_jax.models.ops.resize import interpolation_matrix
from tests import networks

KEY = jax.random.key(0)


def shapes_of(name, patch, **options):
  network = networks.build(name, **options)
  x = jax.ShapeDtypeStruct((1, *patch, 1), jnp.float32)
  variables = jax.eval_shape(lambda x: network.init(KEY, x, False), x)
  return variables, jax.eval_shape(lambda v, x: network.apply(v, x, False), variables, x)


def drawn(shapes, dtype=jnp.float64):
  """Variables drawn with NumPy, none at a value that would hide a mistake."""
  rng = np.random.default_rng(3)

  def one(path, a):
    if path[-1].key == "kernel":
      return jnp.asarray(rng.normal(size=a.shape) / np.sqrt(np.prod(a.shape[:-1]) / 2), dtype)
    low = 0.5 if path[-1].key in ("var", "scale", "prior") else -0.5
    return jnp.asarray(rng.uniform(low, 1, a.shape), dtype)

  return jax.tree_util.tree_map_with_path(one, shapes)


def test_grids_and_channels_of_every_stack():
  """72^3, 36^3 and 18^3 of 144^3; with their inputs the stacks hold 45, 104 and 184 channels."""
  network = networks.build("dense_vnet", num_classes=9, keep_block_input=True)
  x = jax.ShapeDtypeStruct((1, 144, 144, 144, 1), jnp.float32)
  variables = jax.eval_shape(lambda x: network.init(KEY, x, False), x)

  def traced(v, x):
    return network.apply(v, x, False, capture_intermediates=True, mutable=["intermediates"])[1]

  trace = jax.eval_shape(traced, variables, x)["intermediates"]
  shapes = {key: value["__call__"][0].shape for key, value in trace.items() if key != "__call__"}
  half, quarter, eighth = ((1, n, n, n) for n in (72, 36, 18))
  assert shapes == {
    "small_norm": (*half, 1),
    "strided": (*half, 24),
    "stack1": (*half, 45),
    "skip1": (*half, 12),
    "down1": (*quarter, 24),
    "stack2": (*quarter, 104),
    "skip2": (*quarter, 24),
    "down2": (*eighth, 24),
    "stack3": (*eighth, 184),
    "skip3": (*eighth, 24),
    "head": (*half, 9),
  }


@pytest.mark.parametrize(("kept", "number"), [(True, 878_514), (False, 807_558)])
def test_number_of_parameters_and_channels(kept, number):
  """The released graph's, without the prior: 9 x 12^3 = 15,552."""
  options = {"num_classes": 9, "keep_block_input": kept}
  variables, (logits, _) = shapes_of("dense_vnet", (144, 144, 144), **options)
  params = dict(variables["params"])
  assert params.pop("prior").shape == (1, 12, 12, 12, 9)
  assert sum(math.prod(a.shape) for a in jax.tree.leaves(params)) == number
  seen = [params[f"skip{level}"]["conv"]["kernel"].shape[-2] for level in (1, 2, 3)]
  assert seen == ([45, 104, 184] if kept else [20, 80, 160])
  assert params["stack1"]["layer0"]["conv"]["kernel"].shape[-2] == 25
  assert params["head"]["kernel"].shape == (3, 3, 3, 61, 9)
  assert logits.shape == (1, 144, 144, 144, 9)


def test_the_dilated_network_by_hand():
  """Ten layers of eight on 25 channels, 80 of which go on; a second stack is an option."""
  layers = sum(27 * 8 * (25 + 8 * i) + 16 for i in range(10))
  front, skip = 2 + 125 * 24 + 48, 27 * 80 * 24 + 48
  head, prior = 27 * 25 * 2 + 2, 2 * 12**3
  variables, _ = shapes_of("dense_dilated", (8, 8, 8))
  count = sum(math.prod(a.shape) for a in jax.tree.leaves(variables["params"]))
  assert count == front + layers + skip + head + prior
  network = networks.build("dense_dilated", dilation_rates=((1, 2), (1, 2, 4, 8, 1)))
  assert network.patch_multiple == (4, 4, 4)
  assert [len(rates) for *_, rates in network.stacks] == [2, 5]
  with pytest.raises(ValueError, match="3 stacks: at most 2"):
    shapes_of("dense_dilated", (8, 8, 8), dilation_rates=((1,), (1,), (1,)))
  with pytest.raises(ValueError, match="must be a multiple of 8"):
    shapes_of("dense_vnet", (8, 12, 8))


def stack(rates=(1, 2, 1)):
  with jax.enable_x64(True):
    module = DenseStack(3, rates, 0.5, keep_block_input=False, form="native", dtype=jnp.float64)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 3, 4, 2)))
    return module, x, drawn(jax.eval_shape(lambda: module.init(KEY, x, False)))


def test_dropout_leaves_out_channels_of_the_whole_batch():
  with jax.enable_x64(True):
    module, x, variables = stack()
    rngs = {"dropout": jax.random.key(1)}
    y, after = module.apply(variables, x, True, mutable=["batch_stats"], rngs=rngs)
    alive = np.asarray(jnp.any(y != 0, (0, 1, 2, 3)))
    of_layers = alive.reshape(3, 3)
    assert of_layers.sum(1).tolist() == [2, 2, 3]  # ceil(0.5 * 3) of three, the last one's all
    for i, kept in enumerate(of_layers):
      for name in ("mean", "var"):
        before, now = (
          tree["batch_stats"][f"layer{i}"]["norm"]["BatchNorm_0"][name]
          for tree in (variables, after)
        )
        np.testing.assert_array_equal(np.asarray(before != now), kept)
    whole = module.apply(variables, x, False)
    assert jnp.any(whole != 0, (0, 1, 2, 3)).all()
    keys = jax.random.split(jax.random.key(2), 12)
    others = jax.vmap(
      lambda key: module.apply(variables, x, True, mutable="batch_stats", rngs={"dropout": key})[0]
    )(keys)
    alive = np.asarray(jnp.any(others != 0, (1, 2, 3, 4)))  # [keys, channels]
    assert alive.any(0).all()
    assert (
      not alive[:, :6].all(0).any()
    )  # of the layers that drop, each channel is left out by some


def test_a_stack_without_its_dropped_channels_is_the_same_stack():
  """As in the released code, which computes the kept channels only: kernels cut to them."""
  with jax.enable_x64(True):
    module, x, variables = stack(rates=(1, 1))
    y, _ = module.apply(
      variables, x, True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(1)}
    )
    kept = np.flatnonzero(np.any(np.asarray(y[..., :3]) != 0, (0, 1, 2, 3)))
    first = np.asarray(y[..., kept])
    whole, _ = module.clone(channels_kept=1.0).apply(variables, x, True, mutable=["batch_stats"])
    np.testing.assert_allclose(first, whole[..., kept], atol=1e-12)  # nothing is rescaled
    kernel = variables["params"]["layer1"]["conv"]["kernel"][:, :, :, [0, 1, *(2 + kept)]]
    z = jax.lax.conv_general_dilated(
      jnp.concatenate([x, first], -1),
      kernel,
      (1, 1, 1),
      "SAME",
      dimension_numbers=("NXYZC", "XYZIO", "NXYZC"),
    )
    norm = variables["params"]["layer1"]["norm"]["BatchNorm_0"]
    z = (z - z.mean((0, 1, 2, 3))) / np.sqrt(z.var((0, 1, 2, 3)) + 1e-5)
    expected = np.maximum(z * norm["scale"] + norm["bias"], 0)
    np.testing.assert_allclose(y[..., 3:], expected, atol=1e-10)


@pytest.fixture(scope="module")
def small():
  """Two stacks, one layer dilated; a prior of 2^3; and one compiled pass in float64."""
  with jax.enable_x64(True):
    network = networks.build(
      "dense_vnet",
      num_classes=3,
      feature_scale=8.0,
      dilation_rates=((1, 2), (1,)),
      prior_size=2,
      conv="native",
      dtype=jnp.float64,
    )
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 8, 8, 1)))
    variables = drawn(jax.eval_shape(lambda: network.init(KEY, x, False)))

    def apply(params):
      return network.apply({**variables, "params": params}, x, False)[0]

    yield jax.jit(apply), variables["params"], apply


def test_the_prior_of_a_class_moves_the_output_where_it_stands(small):
  logits, params, _ = small
  before = jax.nn.softmax(logits(params))
  raised = params["prior"].at[0, 0, 0, 0, 1].multiply(10.0)
  after = jax.nn.softmax(logits({**params, "prior": raised}))
  assert (after - before)[0, 0, 0, 0, 1] > 0.01
  np.testing.assert_allclose(after[0, -1, -1, -1], before[0, -1, -1, -1], atol=1e-12)
  common = jax.nn.softmax(logits({**params, "prior": params["prior"] * 10}))
  np.testing.assert_allclose(common, before, atol=1e-12)  # one for all classes cancels


def test_without_compiling(small):
  """And what the head takes, and what becomes of its answer on the way to the full grid."""
  logits, params, apply = small
  noted = []

  def note(call, arguments, keywords, context):
    y = call(*arguments, **keywords)
    if context.module.name == "head":
      noted.append((arguments[0], y))
    return y

  with nn.intercept_methods(note):
    plain = apply(params)
  np.testing.assert_allclose(plain, logits(params), atol=1e-12)
  ((taken, answer),) = noted
  skips = taken[..., 1:]
  assert (skips >= 0).all()
  assert (skips == 0).any()
  # As TensorFlow 1 interpolates, every other voxel is a sample: of two grids, every fourth.
  at_samples = answer[:, ::2, ::2, ::2] + jnp.log(params["prior"])
  np.testing.assert_allclose(plain[:, ::4, ::4, ::4], at_samples, atol=1e-12)


def test_gradients_of_the_network(small):
  logits, params, _ = small

  @jax.jit
  def loss(params):
    return jnp.mean(jax.nn.softmax(logits(params))[..., 1] * jnp.sin(jnp.arange(8.0)))

  check_grads(loss, (params,), order=1, modes=["fwd", "rev"], eps=1e-7)


def test_averages_of_windows_that_reach_out_of_the_grid():
  x = jnp.arange(6.0).reshape(1, 6, 1, 1, 1) * jnp.ones((1, 6, 2, 2, 1))
  np.testing.assert_allclose(average_pool(x)[0, :, 0, 0, 0], [1.0, 3.0, 4.5])


def test_interpolation_as_in_tensorflow_1():
  """Read at i size / target: 0, 0.5, 1, 1.5 of two samples, the last held inside."""
  weights = interpolation_matrix(2, 4, "tf1")
  np.testing.assert_allclose(weights, [[1, 0], [0.5, 0.5], [0, 1], [0, 1]])
