"""Holistically nested networks: counts, what each view sees, the fusions, gradients."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from attn_unet_jax.losses import cross_entropy, side
from attn_unet_jax.models.hnn import HNN, STAGES, VIEWS, SliceNetwork, mean_of_top_two
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.workflows.network import build_run_network
from tests import networks
from tests.configs import with_keys

PATCH = (16, 32, 48)


def count(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_number_of_parameters_and_shapes():
  """Of each view: VGG-16's convolutions, five side outputs of 1x1, and their fusion."""
  module = networks.build("hnn", feature_scale=1.0)
  x = jax.ShapeDtypeStruct((2, *PATCH, 1), jnp.float32)
  variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, False), x)
  assert list(variables) == ["params"]
  assert variables["params"].keys() == VIEWS.keys()
  for view in variables["params"].values():
    trunk = {name: stage for name, stage in view.items() if name.startswith("stage")}
    assert tuple(len(stage) for stage in trunk.values()) == STAGES
    assert count(trunk) == 14_714_688
    assert count([view[f"side{i}"] for i in range(1, 6)]) == 1_477
    assert count(view["fuse"]) == 6
  logits, out = jax.eval_shape(lambda v, x: module.apply(v, x, False), variables, x)
  assert (logits.shape, logits.dtype, out["gates"]) == ((2, *PATCH, 2), jnp.float32, {})
  assert list(out["side_logits"]) == [1, 2, 3]
  assert {maps.shape for maps in out["side_logits"].values()} == {(2, *PATCH, 6)}


def test_grids_and_channels_of_every_stage():
  """VGG-16's, the grid kept by padding and halved between stages; each side is read at its own."""
  module = SliceNetwork(1.0)
  x = jax.ShapeDtypeStruct((3, 224, 160, 1), jnp.float32)
  params = jax.eval_shape(lambda x: module.init(jax.random.key(0), x), x)

  def traced(v, x):
    return module.apply(v, x, capture_intermediates=True, mutable=["intermediates"])[1]

  trace = jax.eval_shape(traced, params, x)["intermediates"]
  for stage, channels in enumerate((64, 128, 256, 512, 512), 1):
    grid = (3, 224 // 2 ** (stage - 1), 160 // 2 ** (stage - 1))
    assert trace[f"stage{stage}"]["__call__"][0].shape == (*grid, channels)
    assert trace[f"side{stage}"]["__call__"][0].shape == (*grid, 1)
  assert trace["fuse"]["__call__"][0].shape == (3, 224, 160, 1)


def test_the_start():
  """Side outputs at zero, the fusion at 0.2 of each, kernels as for ReLU."""
  params = jax.jit(lambda key: SliceNetwork(4.0).init(key, jnp.zeros((1, 16, 16, 1))))(
    jax.random.key(0, impl="rbg")
  )["params"]
  np.testing.assert_array_equal(params["fuse"]["kernel"], np.full((5, 1), 0.2, np.float32))
  assert not any(params[f"side{i}"]["kernel"].any() for i in range(1, 6))
  kernel = params["stage5"]["conv2"]["kernel"]
  assert kernel.std() == pytest.approx(math.sqrt(2 / (9 * 128)), rel=0.02)


class _Seen(Exception):
  """What a module was given."""


def test_the_trunk_is_given_what_imagenets_was():
  """A grey value as red, green and blue, less the mean of each and over its deviation."""

  def note(call, arguments, keywords, context):
    if context.module.name == "stage1":
      raise _Seen(arguments[0])
    return call(*arguments, **keywords)

  x = jnp.full((1, 16, 16, 1), 0.5)
  with pytest.raises(_Seen) as seen, nn.intercept_methods(note):
    SliceNetwork(64.0).init(jax.random.key(0), x)
  means, deviations = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
  expected = np.broadcast_to((0.5 - means) / deviations, (1, 16, 16, 3))
  np.testing.assert_allclose(seen.value.args[0], expected, rtol=1e-5)


def drawn(module, *shape, seed=1):
  """Parameters of which none is zero, drawn with NumPy."""
  rng = np.random.default_rng(seed)
  like = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros(shape), *extra(module)))
  return jax.tree.map(
    lambda a: rng.normal(0.1, 1 / math.sqrt(max(1, math.prod(a.shape[:-1]))), a.shape),
    like["params"],
  )


def extra(module):
  return (False,) if isinstance(module, HNN) else ()


@pytest.fixture(scope="module")
def tiny():
  """With GroupNorm, which must look at one slice alone; one compiled program, in float64."""
  with jax.enable_x64(True):
    module = HNN(32.0, "group", dtype=jnp.float64)
    params = jax.tree.map(jnp.asarray, drawn(module, 1, *PATCH, 1))
    x = jnp.asarray(np.random.default_rng(2).normal(size=(1, *PATCH, 1)))
    apply = jax.jit(lambda params, x: module.apply({"params": params}, x, True))
    yield module, params, x, apply


def test_each_view_sees_one_slice_at_a_time(tiny):
  with jax.enable_x64(True):
    _, params, x, apply = tiny
    before = apply(params, x)[1]["side_logits"]
    after = apply(params, x.at[:, 5].add(0.5))[1]["side_logits"]
    changed = np.abs(after[1] - before[1]).max(axis=(0, 2, 3))  # [X, maps]
    assert (changed[5] > 1e-6).all()
    assert not np.delete(changed, 5, axis=0).any()
    for axis in (2, 3):  # every slice of these views has a row of it
      assert (np.abs(after[axis] - before[axis]).max(axis=(0, 1, 5 - axis)) > 1e-9).all()


def test_the_answer_is_the_mean_of_the_two_largest_views(tiny):
  with jax.enable_x64(True):
    _, params, x, apply = tiny
    first = apply(params, x)[1]["side_logits"]
    level = {view: np.median(first[axis][..., -1]) for view, axis in VIEWS.items()}
    params = {
      view: own | {"fuse": own["fuse"] | {"bias": own["fuse"]["bias"] - level[view]}}
      for view, own in params.items()
    }
    logits, out = apply(params, x)
    fused = np.stack([np.asarray(maps[..., -1]) for maps in out["side_logits"].values()])
    expected = np.sort(1 / (1 + np.exp(-fused)), axis=0)[1:].mean(axis=0)
    assert set(np.unique(np.argmin(fused, axis=0))) == {0, 1, 2}  # each is left out somewhere
    np.testing.assert_allclose(jax.nn.softmax(logits)[..., 1], expected, atol=1e-12)


def test_top_two_where_probabilities_round_to_0_and_1():
  a, b, c = jnp.array([80.0, -80.0, 0.0]), jnp.array([90.0, -90.0, 80.0]), jnp.array([-5.0, -85, 1])
  np.testing.assert_allclose(
    mean_of_top_two(a, b, c)[:2], [80 + math.log(2), -80 - math.log(2)], rtol=1e-3
  )
  assert float(mean_of_top_two(a, b, c)[2]) == pytest.approx(
    math.log((1.7310586) / (2 - 1.7310586))
  )
  np.testing.assert_array_equal(mean_of_top_two(a, b, c), mean_of_top_two(c, a, b))


@pytest.mark.slow
def test_no_gradient_between_views_nor_through_their_fusion(tiny):
  """The axial maps move the axial network alone, and the fused answer moves nothing."""
  with jax.enable_x64(True):
    module, params, x, _ = tiny
    label = jnp.asarray(np.random.default_rng(3).integers(0, 2, (1, *PATCH)))

    def loss(params):
      logits, out = module.apply({"params": params}, x, True)
      axial = {3: out["side_logits"][3]}
      return side.side_bce(axial, label) + cross_entropy.cross_entropy(logits, label)

    slopes = jax.jit(jax.grad(loss))(params)
    assert all(slope.any() for slope in jax.tree.leaves(slopes["axial"]["side5"]))
    assert slopes["axial"]["stage1"]["conv1"]["kernel"].any()
    others = jax.tree.leaves([slopes["coronal"], slopes["sagittal"]])
    assert not any(slope.any() for slope in others)


@pytest.fixture(scope="module")
def one_view():
  """Of one slice: its parameters and the loss on its six maps, in float64."""
  with jax.enable_x64(True):
    module = SliceNetwork(64.0, dtype=jnp.float64)
    params = jax.tree.map(jnp.asarray, drawn(module, 1, 16, 16, 1))
    rng = np.random.default_rng(4)
    x, label = jnp.asarray(rng.normal(size=(1, 16, 16, 1))), rng.integers(0, 2, (1, 1, 16, 16))

    def loss(params):
      return side.side_bce({1: module.apply({"params": params}, x)[:, None]}, label)

    yield loss, params


def test_gradients(one_view):
  """Reverse mode; one program gives values and gradients, for compiling is all the cost."""
  with jax.enable_x64(True):
    loss, params = one_view
    both = jax.jit(jax.value_and_grad(loss))
    ready = jax.custom_vjp(lambda params: both(params)[0])
    ready.defvjp(both, lambda gradient, g: (jax.tree.map(lambda a: g * a, gradient),))
    check_grads(ready, (params,), order=1, modes=["rev"], eps=1e-7)


@pytest.mark.slow
def test_forward_gradients_and_no_jit(one_view):
  with jax.enable_x64(True):
    loss, params = one_view
    compiled = jax.jit(loss)
    np.testing.assert_allclose(loss(params), compiled(params), rtol=1e-12)
    check_grads(compiled, (params,), order=1, modes=["fwd"], eps=1e-7)


def test_stages_that_are_computed_again_are_kept_no_more():
  """Bytes handed to the backward pass; the parameters have the same names."""
  kept, structures = [], []
  for remat in (0, 1, 5):
    module = SliceNetwork(16.0, remat=remat)
    x = jnp.zeros((4, 32, 32, 1))
    like = jax.eval_shape(lambda m=module, x=x: m.init(jax.random.key(0), x))["params"]
    structures.append(jax.tree.structure(like))

    def backward(params, module=module, x=x):
      return jax.vjp(lambda p: module.apply({"params": p}, x), params)[1]

    kept.append(count(jax.eval_shape(backward, like)))
  assert structures[0] == structures[1] == structures[2]
  assert kept[2] < kept[1] < 0.9 * kept[0]


def test_what_it_cannot_take_is_refused(config):
  x = jax.ShapeDtypeStruct((1, 16, 24, 16, 1), jnp.float32)
  with pytest.raises(ValueError, match="multiple of 16"):
    jax.eval_shape(lambda x: HNN(64.0).init(jax.random.key(0), x, False), x)
  config = with_keys(config, {"model.name": "hnn"})
  with pytest.raises(UserError, match=r"data\.labels.*hnn tells one class from the background"):
    build_run_network(config, 3)
