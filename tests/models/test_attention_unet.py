import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from attn_unet_jax.models.gates import AttentionGate
from tests import networks

PATCH = (32, 16, 16)


pytestmark = pytest.mark.usefixtures("double_precision_throughout")


def network(form):
  return networks.build("attention_unet", feature_scale=32, conv=form, dtype=jnp.float64)


@pytest.fixture(scope="module")
def variables():
  """Drawn with NumPy: compiling the initialisers would take longer than all the rest."""
  rng = np.random.default_rng(1)

  def draw(path, a):
    fan_in = np.prod(a.shape[:-1])
    kind = path[-1].key
    means = {"kernel": 0.0, "scale": 1.0, "bias": 0.5, "mean": 0.0, "var": 1.0}
    deviation = np.sqrt(2 / fan_in) if kind == "kernel" else 0.02
    return jnp.asarray(means[kind] + deviation * rng.normal(size=a.shape))

  shapes = jax.eval_shape(lambda x: network("auto").init(jax.random.key(0), x, False), images())
  return jax.tree_util.tree_map_with_path(draw, shapes)


def images():
  return jnp.asarray(np.random.default_rng(0).normal(size=(2, *PATCH, 1)))


@functools.cache
def trained(form):
  """One compiled pass: logits, coefficients, new statistics, and gradients in the parameters."""

  def loss(params, stats, x):
    state = {"params": params, "batch_stats": stats}
    (logits, out), updates = network(form).apply(state, x, True, mutable=["batch_stats"])
    probability = jax.nn.softmax(logits)[..., 1]
    return jnp.mean(probability * jnp.sin(jnp.arange(PATCH[2]))), (logits, out, updates)

  return jax.jit(jax.value_and_grad(loss, has_aux=True))


@pytest.fixture(scope="module")
def auto(variables):
  return trained("auto")(variables["params"], variables["batch_stats"], images())


@pytest.mark.slow
def test_every_form_gives_the_same_network_and_gradients(variables, auto):
  native = trained("native")(variables["params"], variables["batch_stats"], images())
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9), auto, native)


def test_coefficients_leave_the_network_on_the_skips_grids(auto):
  (_, (logits, out, _)), _ = auto
  assert logits.shape == (2, *PATCH, 2)
  grids = {4: (4, 2, 2), 3: (8, 4, 4), 2: (16, 8, 8)}
  expected = {f"level{level}/{i}": (2, *grids[level], 1) for level in grids for i in range(2)}
  assert {name: alpha.shape for name, alpha in out["gates"].items()} == expected
  for alpha in out["gates"].values():
    assert 0 < alpha.min() < alpha.max() < 1


def test_every_parameter_but_cancelled_biases_moves_the_loss(auto):
  # A bias before a batch normalisation is subtracted again with the mean.
  _, gradient = auto
  flat = jax.tree_util.tree_leaves_with_path(gradient)
  still = [jax.tree_util.keystr(path) for path, g in flat if jnp.abs(g).max() < 1e-14]
  assert all(name.endswith("['bias']") for name in still)
  assert not any("deep_supervision" in name or "psi" in name for name in still)


def test_gradients_against_differences(variables, auto):
  """Reverse mode through the whole network, along a random direction."""

  def loss(params):
    return trained("auto")(params, variables["batch_stats"], images())[0][0]

  # A step of 1e-8: a longer one crosses kinks of the 200,000 ReLUs and poolings (at 1e-6, 1 % off).
  # The compiled gradient, as check_grads would take it: one program serves every test here.
  ready = jax.custom_vjp(loss)
  ready.defvjp(
    lambda params: (loss(params), None), lambda _, g: (jax.tree.map(lambda a: g * a, auto[1]),)
  )
  check_grads(ready, (variables["params"],), order=1, modes=["rev"], eps=1e-8)


def test_single_gate_has_one_set_of_coefficients():
  net = networks.build("attention_unet", gates=1, gate_bias_init=3.0, feature_scale=32)
  x = jax.ShapeDtypeStruct((1, 16, 16, 16, 1), jnp.float32)
  (_, out), variables = jax.eval_shape(
    lambda x: net.init_with_output(jax.random.key(0), x, True), x
  )
  assert sorted(out["gates"]) == ["level2/0", "level3/0", "level4/0"]
  assert "gate1" not in variables["params"]["skip2"]


def test_gates_of_all_four_levels_by_one_shared_signal():
  """The bottleneck's 32 channels become a signal of 16, which every gate takes, as asked for."""
  options = {"gating": "shared", "gate_finest": True, "feature_scale": 32}
  own = {"gate": "softplus", "gate_bias_init": 3.0, "upsampling": "half_pixel"}
  net = networks.build("attention_unet", **options, **own)
  x = jax.ShapeDtypeStruct((1, 32, 16, 16, 1), jnp.float32)
  noted = []

  def note(call, arguments, keywords, context):
    if isinstance(gate := context.module, AttentionGate) and context.method_name == "__call__":
      noted.append((gate.variant, gate.gate_bias_init, gate.upsampling))
    return call(*arguments, **keywords)

  with nn.intercept_methods(note):
    (_, out), variables = jax.eval_shape(
      lambda x: net.init_with_output(jax.random.key(0), x, True), x
    )
  assert noted == [tuple(own.values())] * 8
  assert out["gates"]["level1/1"].shape == (1, 32, 16, 16, 1)
  params = variables["params"]
  assert params["gating"]["Conv_0"]["kernel"].shape[-2:] == (32, 16)
  inputs = {params[f"skip{level}"]["gate0"]["phi"]["kernel"].shape[-2] for level in (1, 2, 3, 4)}
  assert inputs == {16}


def test_the_finest_gate_listens_to_the_level_below():
  net = networks.build("attention_unet", gate_finest=True, feature_scale=32)
  x = jax.ShapeDtypeStruct((1, 16, 16, 16, 1), jnp.float32)
  variables = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, True), x)
  phi = variables["params"]["skip1"]["gate0"]["phi"]["kernel"]
  assert phi.shape == (1, 1, 1, 4, 2)  # decoder2's four channels to encoder1's two
