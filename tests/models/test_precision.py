"""bfloat16 where it saves, float32 where it counts; and blocks that are computed twice."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.losses.options import LossTerm
from attn_unet_jax.losses.total import sum_terms
from attn_unet_jax.models import build
from attn_unet_jax.models.layers import Conv, ConvBlock, remat_block
from attn_unet_jax.models.options import NETWORKS
from attn_unet_jax.training.cost import _iterate_equations
from tests import networks

FAST = ("attention_unet", "unet3d")  # those of the fast suite


def _forward(module):
  """Traces a training forward pass: its equations, its outputs and the variables, all abstract."""
  patch = build.nearest_patch(module, (16, 16, 16))
  image = jax.ShapeDtypeStruct((2, *patch, 1), jnp.float32)
  variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)

  def run(variables, x):
    (logits, out), changed = module.apply(variables, x, train=True, mutable=["batch_stats"])
    return logits, out, changed

  jaxpr, shapes = jax.make_jaxpr(run, return_shape=True)(variables, image)
  return list(_iterate_equations(jaxpr.jaxpr)), shapes, variables


def _types(tree):
  return {x.dtype for x in jax.tree.leaves(tree)}


@pytest.mark.parametrize(
  "name",
  [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS],
)
def test_bfloat16_computes_and_float32_keeps(name):
  module = networks.build_native(name, dtype="bfloat16", feature_scale=16.0)
  equations, (logits, _, changed), variables = _forward(module)
  assert _types(variables) == {jnp.dtype("float32")}
  assert _types(changed) <= {jnp.dtype("float32")}
  assert logits.dtype == jnp.float32
  products = [e for e in equations if e.primitive.name == "conv_general_dilated"]
  assert {v.aval.dtype for e in products for v in e.invars} == {jnp.dtype("bfloat16")}
  for equation in equations:  # the statistics of a batch norm
    if equation.primitive.name in ("reduce_sum", "rsqrt", "integer_pow"):
      assert equation.invars[0].aval.dtype == jnp.float32


_GATES = ({"gate": "softmax"}, {"gate": "softplus"}, {"gating": "shared"}, {"gate_finest": True})


@pytest.mark.parametrize(
  ("name", "options"),
  [
    *((name, {}) for name in FAST),
    *(
      pytest.param(*case, marks=pytest.mark.slow)
      for case in [
        *((name, {}) for name in NETWORKS if name not in FAST),
        *(("attention_unet", options) for options in _GATES),
        ("dual_attention", {"channel_reduction": 2}),
        ("dual_attention", {"attention_joining": "max"}),
      ]
    ),
  ],
)
def test_no_gradient_is_summed_up_in_bfloat16(name, options):
  """Its eight bits stop growing at 256 times the terms; a product's sum is taken in float32."""
  module = networks.build_native(name, dtype="bfloat16", feature_scale=16.0, **options)
  patch = build.nearest_patch(module, (16, 16, 16))
  image = jax.ShapeDtypeStruct((2, *patch, 1), jnp.float32)
  variables = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)

  def total(variables, x):
    (logits, out), _ = module.apply(variables, x, train=True, mutable=["batch_stats"])
    return logits.sum() + sum(x.sum() for x in jax.tree.leaves(out.get("side_logits", {})))

  equations = list(_iterate_equations(jax.make_jaxpr(jax.grad(total))(variables, image).jaxpr))
  sums = [e for e in equations if e.primitive.name in ("reduce_sum", "reduce_window_sum")]
  assert sums
  for equation in sums:
    terms = equation.invars[0].aval.size // max(1, equation.outvars[0].aval.size)
    narrow = equation.invars[0].aval.dtype == jnp.bfloat16
    assert not (narrow and terms > 1), equation.source_info.name_stack


def test_a_bias_has_the_gradient_of_all_voxels():
  """2^15 of them, each 1: in bfloat16 the sum is 2048 and less."""
  layer, x = Conv(1, size=1, dtype=jnp.bfloat16), jnp.ones((1, 32, 32, 32, 1), jnp.bfloat16)
  variables = jax.jit(layer.init)(jax.random.key(0), x)
  gradient = jax.jit(jax.grad(lambda v: layer.apply(v, x).astype(jnp.float32).sum()))(variables)
  np.testing.assert_array_equal(gradient["params"]["bias"], [2**15])


@pytest.mark.parametrize("name", ["dice", "bce", "ce", "focal", "tversky", "generalised_dice"])
def test_softmax_and_loss_are_float32(name):
  logits = jax.ShapeDtypeStruct((1, 4, 4, 4, 2), jnp.bfloat16)
  label = jnp.zeros((1, 4, 4, 4), jnp.uint8)
  jaxpr = jax.make_jaxpr(lambda x: sum_terms([LossTerm(name, 1.0)], x, label)[0])(logits)
  equations = [
    e for e in _iterate_equations(jaxpr.jaxpr) if e.primitive.name != "convert_element_type"
  ]
  assert {"exp", "reduce_sum"} <= {e.primitive.name for e in equations}
  types = {v.aval.dtype for e in equations for v in e.invars}
  assert jnp.dtype("bfloat16") not in types


def _kept(module, variables, x):
  """Bytes that the forward pass hands to the backward pass, and blocks that are rematerialised."""
  blocks = set()

  def note(call, arguments, keywords, context):
    if type(context.module).__name__.startswith("Checkpoint"):
      blocks.add(context.module.name)
    return call(*arguments, **keywords)

  def backward(params):
    def run(params):
      (logits, _), _ = module.apply({**variables, "params": params}, x, True, mutable="batch_stats")
      return logits

    return jax.vjp(run, params)[1]

  with nn.intercept_methods(note):
    kept = jax.eval_shape(backward, variables["params"])
  return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept)), len(blocks)


@pytest.mark.parametrize(
  ("name", "one", "most"),
  [
    pytest.param("attention_unet", 2, 9, marks=pytest.mark.slow),
    ("unet3d", 2, 7),
    pytest.param("vnet", 2, 9, marks=pytest.mark.slow),
    ("dense_vnet", 1, 3),
  ],
)
def test_a_rematerialised_network_keeps_less_for_its_backward_pass(name, one, most):
  found, structures = [], []
  dense = {"dilation_rates": ((1, 1, 1),) * 3, "channels_kept": 1.0}
  for levels in (0, 1, 5):
    options = dense if name == "dense_vnet" else {}
    module = networks.build_native(name, feature_scale=8.0, remat=levels, **options)
    x = jnp.zeros((1, *build.nearest_patch(module, (32, 32, 32)), 1))
    variables = jax.eval_shape(lambda m=module, x=x: m.init(jax.random.key(0), x, train=False))
    structures.append(jax.tree.structure(variables))
    numbers = jax.tree.map(lambda v: np.zeros(v.shape, v.dtype), variables)
    found.append(_kept(module, numbers, x))
  assert structures[0] == structures[1] == structures[2]  # any checkpoint opens
  (plain, none), (finest, some), (all_, every) = found
  assert (none, some, every) == (0, one, most)
  assert all_ < finest < 0.9 * plain
  assert all_ < 0.8 * plain, found


class _Blocks(nn.Module):
  """Two blocks on one grid."""

  remat: int

  @nn.compact
  def __call__(self, x):
    for i in range(2):
      kind = remat_block(ConvBlock, 1, self.remat)
      x = kind(4, "native", jnp.float64, name=f"block{i}")(x, True)
    return x


def test_rematerialised_blocks_give_the_same_gradient():
  """Float64, 1e-12. The memory is not compared here: XLA's CPU compiler computes nothing twice."""
  with jax.enable_x64(True):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 6, 6, 6, 4)))
    variables = jax.jit(_Blocks(0).init)(jax.random.key(0), x)
    results = []
    for remat in (0, 1):

      def loss(params, remat=remat):
        y, changed = _Blocks(remat).apply({**variables, "params": params}, x, mutable="batch_stats")
        return jnp.mean(y**2), changed

      results.append(jax.jit(jax.grad(loss, has_aux=True))(variables["params"]))
  for a, b in zip(*map(jax.tree.leaves, results), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
