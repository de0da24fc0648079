import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict

from attn_unet_jax.models.dual_attention import DualAttention
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.optimizer import build_optimizer, build_rate_schedule, check_patterns
from tests.configs import with_keys


def test_step_decay_counts_epochs(config):
  config = with_keys(
    config,
    {
      "optimizer.schedule": "step",
      "optimizer.learning_rate": 1e-4,
      "optimizer.decay_epochs": 2,
      "train.steps_per_epoch": 10,
    },
  )
  rate = build_rate_schedule(config)
  assert [float(rate(s)) for s in (0, 19, 20, 40)] == pytest.approx([1e-4, 1e-4, 5e-5, 2.5e-5])


def test_cosine_ends_at_zero_and_warms_up(config):
  config = with_keys(
    config,
    {
      "optimizer.schedule": "cosine",
      "optimizer.learning_rate": 1.0,
      "optimizer.warmup_steps": 10,
      "train.epochs": 11,
      "train.steps_per_epoch": 10,
    },
  )
  rate = build_rate_schedule(config)
  assert [float(rate(s)) for s in (0, 5, 10, 60, 110)] == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_constant_stays(config):
  assert float(build_rate_schedule(config)(10**6)) == pytest.approx(config.optimizer.learning_rate)


def test_weight_decay_is_coupled_as_in_the_reference(config):
  """Two steps of Adam on g + L2 * w, by hand."""
  config = with_keys(
    config,
    {
      "optimizer.weight_decay": 0.1,
      "optimizer.learning_rate": 0.01,
      "optimizer.betas": (0.8, 0.95),
    },
  )
  transform = build_optimizer(config)
  w = jnp.array([1.0, -2.0])
  state, hand = transform.init(w), np.array([1.0, -2.0])
  m = v = np.zeros(2)
  for t in (1, 2):
    g = np.array([0.5, 3.0]) * t
    updates, state = transform.update(jnp.array(g), state, w)
    w = optax.apply_updates(w, updates)
    g = g + 0.1 * hand
    m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g**2
    hand = hand - 0.01 * (m / (1 - 0.8**t)) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)
  np.testing.assert_allclose(w, hand, rtol=1e-6)


PARAMS = {"a": {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([0.5])}, "slope": jnp.ones(1)}
GRADIENT = {"a": {"kernel": jnp.array([0.5, 3.0]), "bias": jnp.array([2.0])}, "slope": jnp.ones(1)}


def _updates(config, steps=2):
  """Updates of the last of several steps with the same gradient, at parameters that stay."""
  transform = build_optimizer(config)
  state = transform.init(PARAMS)
  for _ in range(steps):
    updates, state = transform.update(GRADIENT, state, PARAMS)
  return updates


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_with_biases_at_a_rate_of_their_own_and_no_decay(config, nesterov):
  """V-Net's: v = m v + g + L2 w, step -rate v; biases without the L2 and twice as fast."""
  config = with_keys(
    config,
    {
      "optimizer.name": "sgd",
      "optimizer.momentum": 0.99,
      "optimizer.nesterov": nesterov,
      "optimizer.weight_decay": 0.1,
      "optimizer.learning_rate": 0.01,
      "optimizer.bias_rate": 2.0,
      "optimizer.decay_biases": False,
    },
  )
  factor = 1 + 0.99 + 0.99**2 * nesterov  # of a gradient that came twice
  updates = _updates(config)
  kernel = np.array([0.5, 3.0]) + 0.1 * np.array([1.0, -2.0])
  np.testing.assert_allclose(updates["a"]["kernel"], -0.01 * factor * kernel, rtol=1e-6)
  np.testing.assert_allclose(updates["a"]["bias"], [-0.02 * factor * 2.0], rtol=1e-6)
  np.testing.assert_allclose(updates["slope"], [-0.01 * factor * 1.1], rtol=1e-6)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_rate_of_biases_is_not_lost_in_the_moments(config, name):
  """Which are scaled like the gradient: the factor is on the step, whose size is the rate here."""
  config = with_keys(
    config,
    {
      "optimizer.name": name,
      "optimizer.bias_rate": 2.0,
      "optimizer.weight_decay": 0.0,
      "optimizer.learning_rate": 0.01,
    },
  )
  updates = _updates(config)
  np.testing.assert_allclose(updates["a"]["kernel"], [-0.01, -0.01], rtol=1e-4)
  np.testing.assert_allclose(updates["a"]["bias"], [-0.02], rtol=1e-4)


def test_biases_of_attention_are_biases(config):
  """Parameters of their module, beside its kernels."""
  config = with_keys(
    config,
    {
      "optimizer.name": "sgd",
      "optimizer.momentum": 0.0,
      "optimizer.weight_decay": 0.5,
      "optimizer.learning_rate": 1.0,
      "optimizer.bias_rate": 2.0,
      "optimizer.decay_biases": False,
    },
  )
  x, g = jnp.zeros((1, 2, 2, 2, 4)), jnp.zeros((1, 1, 1, 1, 8))
  module = DualAttention(channel_reduction=2)
  shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, g, False))["params"]
  ones = jax.tree.map(lambda a: jnp.ones(a.shape), shapes)
  transform = build_optimizer(config)
  updates, _ = transform.update(ones, transform.init(ones), ones)
  found = {"/".join(k): float(u.ravel()[0]) for k, u in flatten_dict(updates).items()}
  biases = {"spatial_bias", "channel_bias", "channel_reduced_bias", "output/Conv_0/bias"}
  biases.add("output/BatchNorm_0/BatchNorm_0/bias")
  assert {name for name, update in found.items() if update == -2.0} == biases
  assert {update for name, update in found.items() if name not in biases} == {-1.5}


def test_adamw_decays_beside_the_moments(config):
  """A constant gradient makes Adam's step the rate times its sign; the decay comes on top."""
  config = with_keys(
    config,
    {"optimizer.name": "adamw", "optimizer.weight_decay": 0.1, "optimizer.learning_rate": 0.01},
  )
  expected = -0.01 * (1 + 0.1 * np.array([1.0, -2.0]))
  updates = _updates(config)
  np.testing.assert_allclose(updates["a"]["kernel"], expected, rtol=1e-4)
  np.testing.assert_allclose(updates["a"]["bias"], [-0.01 * (1 + 0.1 * 0.5)], rtol=1e-4)


def test_the_default_has_the_references_state_and_steps(config):
  """Options at their neutral values leave no trace, so runs and checkpoints stay what they were."""
  settings = config.optimizer
  plain = optax.chain(
    optax.add_decayed_weights(settings.weight_decay),
    optax.scale_by_adam(*settings.betas),
    optax.scale_by_learning_rate(build_rate_schedule(config)),
  )
  state, ours = plain.init(PARAMS), build_optimizer(config).init(PARAMS)
  assert jax.tree.structure(state) == jax.tree.structure(ours)
  expected, _ = plain.update(GRADIENT, state, PARAMS)
  updates, _ = build_optimizer(config).update(GRADIENT, ours, PARAMS)
  jax.tree.map(np.testing.assert_array_equal, updates, expected)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_frozen_parameters_keep_their_bits(config, name):
  """Also those that a rate of their own is given."""
  config = with_keys(
    config,
    {
      "optimizer.name": name,
      "optimizer.weight_decay": 0.1,
      "init.freeze": "^a/",
      "optimizer.layer_rates": (("kernel", 2.0),),
    },
  )
  updates = _updates(config)
  after = optax.apply_updates(PARAMS, updates)
  jax.tree.map(np.testing.assert_array_equal, after["a"], PARAMS["a"])
  assert after["slope"] != PARAMS["slope"]


def test_rates_by_layer(config):
  """The first pattern that is found counts; a bias's own factor comes on top."""
  config = with_keys(
    config,
    {
      "optimizer.name": "sgd",
      "optimizer.momentum": 0.0,
      "optimizer.weight_decay": 0.0,
      "optimizer.learning_rate": 0.1,
      "optimizer.bias_rate": 2.0,
      "optimizer.layer_rates": (("bias", 10.0), ("^a", 0.01)),
    },
  )
  updates = _updates(config)
  np.testing.assert_allclose(updates["a"]["kernel"], -0.1 * 0.01 * GRADIENT["a"]["kernel"])
  np.testing.assert_allclose(updates["a"]["bias"], -0.1 * 2 * 10 * GRADIENT["a"]["bias"])
  np.testing.assert_allclose(updates["slope"], -0.1 * GRADIENT["slope"])


def test_patterns_that_do_nothing_are_refused(config):
  config = with_keys(config, {"optimizer.layer_rates": (("kernel", 2.0),), "init.freeze": "bias"})
  check_patterns(config, PARAMS)
  config = with_keys(config, {"optimizer.layer_rates": (("decoder", 2.0),), "init.freeze": ""})
  with pytest.raises(UserError, match=r"layer_rates: 'decoder' is found in no parameter's path"):
    check_patterns(config, PARAMS)
  config = with_keys(config, {"optimizer.layer_rates": (), "init.freeze": "a|slope"})
  with pytest.raises(UserError, match="freezes every parameter"):
    check_patterns(config, PARAMS)
