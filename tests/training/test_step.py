"""The step for every network, traced; and what of a label an unpadded network is held to."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.labels import rest_value
from attn_unet_jax.losses.options import LossTerm
from attn_unet_jax.losses.total import load_loss, sum_terms
from attn_unet_jax.models import build, layers, options
from attn_unet_jax.patches.batch import (
  NetworkInput,
  StreamedBatch,
  make_training_batch,
  make_training_cropper,
)
from attn_unet_jax.patches.device_source import make_resident
from attn_unet_jax.patches.host_cropper import stack_blocks
from attn_unet_jax.patches.schedule import SchedulePlan, sample_batch
from attn_unet_jax.training.state import abstract_state, make_initial_state
from attn_unet_jax.training.step import _make_dropout_key, fixed_loss, run_forward, train_step
from attn_unet_jax.workflows.network import build_run_network
from tests import networks
from tests.configs import small_config, with_keys
from tests.conftest import assert_same
from tests.line import Line

NAMES = tuple(options.NETWORKS)
KEY = jax.random.key(0)


# With batch statistics, without, and with an answer that is smaller than the patch.
QUICKEST = ("unet", "vnet", "hnn")


@pytest.mark.parametrize(
  "name",
  [name if name in QUICKEST else pytest.param(name, marks=pytest.mark.slow) for name in NAMES],
)
def test_a_step_keeps_the_states_shape(config, name):
  """Also of networks without batch statistics, and with a patch that is larger than the output."""
  config = with_keys(
    config,
    {
      "model.name": name,
      "optimizer.name": "sgd",
      "optimizer.bias_rate": 2.0,
      "optimizer.decay_biases": False,
      "data.patch": build.nearest_patch(networks.build(name), (16, 16, 16)),
    },
  )
  module = build_run_network(config, 2)
  image = np.zeros((100, 95, 93), np.int16)
  case = WorkingCase("a", image, image.astype(np.uint8), 0.0, 1.0)
  data = make_resident([case], config.data.patch)
  state = abstract_state(config, module)
  after, outcome = jax.eval_shape(lambda s, d: train_step(config, module, s, d), state, data)
  assert outcome.loss.shape == outcome.gradient_norm.shape == ()
  assert jax.tree.structure(after) == jax.tree.structure(state)
  assert jax.tree.leaves(after) == jax.tree.leaves(state)
  assert bool(state.batch_stats) == (not name.startswith(("vnet", "hnn")))


class _Unpadded(nn.Module):
  """The image's own values as the second class's logits, less a margin."""

  output_margin = (1, 2, 0)

  @nn.compact
  def __call__(self, x, train):
    del train
    inner = x[:, 1:-1, 2:-2]
    return jnp.concatenate([jnp.zeros_like(inner), inner], -1), {}


class _Alone(nn.Module):
  """A block as a network."""

  block: nn.Module

  @nn.compact
  def __call__(self, x, train):
    return self.block(x, train), {}


def test_labels_are_cropped_to_the_networks_output(config):
  rng = np.random.default_rng(0)
  image = jnp.asarray(rng.normal(size=(2, 4, 6, 3, 1)), jnp.float32)
  label = jnp.asarray(rng.integers(0, 2, (2, 4, 6, 3)), jnp.uint8)
  logits, _ = _Unpadded().apply({}, image, False)
  terms = (LossTerm("dice", 1.0), LossTerm("bce", 1.0))
  expected = sum_terms(terms, logits, label[:, 1:3, 2:4])[0]
  assert fixed_loss(config, _Unpadded(), {}, NetworkInput(image, label)) == expected


@pytest.mark.parametrize(
  ("name", "option", "value", "argument"),
  [
    ("balanced_bce", "foreground", 0.3, "foreground"),
    ("weighted_ce", "class_weights", (1.0, 3.0), "class_weights"),
    ("focal", "focal_gamma", 0.5, "gamma"),
    ("tversky", "tversky_alpha", 0.9, "alpha"),
    ("tversky", "tversky_beta", 0.2, "beta"),
  ],
)
def test_an_option_of_a_loss_reaches_it(config, name, option, value, argument):
  rng = np.random.default_rng(0)
  image = jnp.asarray(rng.normal(size=(1, 4, 6, 3, 1)), jnp.float32)
  label = jnp.asarray(rng.integers(0, 2, (1, 4, 6, 3)), jnp.uint8)
  config = with_keys(
    config,
    {"loss.dice": 0.0, "loss.bce": 0.0, f"loss.{name}": 2.0, f"loss_options.{option}": value},
  )
  logits, _ = _Unpadded().apply({}, image, False)
  loss, given = load_loss(name), (logits, label[:, 1:3, 2:4])
  asked, usual = float(loss(*given, **{argument: value})), float(loss(*given))
  found = float(fixed_loss(config, _Unpadded(), {}, NetworkInput(image, label)))
  assert found == pytest.approx(2 * asked, rel=1e-6)
  assert found != pytest.approx(2 * usual, rel=1e-3)


def test_a_class_that_the_data_does_not_label_may_be_its_background(config):
  """Of two classes one is `none`: the loss is that of its probability added to the background's."""
  rng = np.random.default_rng(0)
  image = jnp.asarray(rng.normal(size=(2, 4, 6, 3, 1)), jnp.float32)
  label = jnp.asarray(rng.integers(0, 2, (2, 4, 6, 3)), jnp.uint8)
  partial = with_keys(config, {"data.labels": "pancreas=1,liver=none"})
  marked = NetworkInput(image, jnp.where(label == 0, rest_value(0), label))
  found = fixed_loss(partial, _Three(), {}, marked)
  logits, _ = _Three().apply({}, image, False)
  background = jnp.logaddexp(logits[..., 0], logits[..., 2])
  two = jnp.stack([background, logits[..., 1]], -1)
  expected = sum_terms(config.loss.terms, two, label)[0]
  np.testing.assert_allclose(found, expected, rtol=1e-5)


class _Three(nn.Module):
  """The image and its square as the logits of two classes."""

  output_margin = (0, 0, 0)

  @nn.compact
  def __call__(self, x, train):
    del train
    return jnp.concatenate([jnp.zeros_like(x), x, x**2], -1), {}


def test_groups_have_batch_statistics_of_their_own():
  """Two groups of one batch, against each group by itself."""
  block = layers.ConvBlock(2, form="native")
  module = _Alone(block)
  x = jax.random.normal(jax.random.key(0), (4, 3, 2, 2, 1))
  variables = module.init(jax.random.key(1), x, train=True)
  together, statistics = run_forward(module, variables, x, KEY, 2)
  apart = [run_forward(module, variables, part, KEY, 1) for part in jnp.split(x, 2)]
  np.testing.assert_allclose(
    together.logits, jnp.concatenate([y.logits for y, _ in apart]), atol=1e-6
  )
  mean = jax.tree.map(lambda a, b: (a + b) / 2, *(changed for _, changed in apart))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), statistics, mean)
  assert jnp.abs(together.logits - run_forward(module, variables, x, KEY, 1)[0].logits).max() > 1e-3


def _small(config):
  """The config with eight small patches a step, and a resident set to cut them from."""
  config = with_keys(
    config,
    {
      "data.patch": (4, 4, 4),
      "train.batch_size": 8,
      "augment.flip": (0.5, 0.5, 0.5),
      "optimizer.learning_rate": 0.05,
    },
  )
  return config, make_resident(_cases(), config.data.patch)


def _cases():
  rng = np.random.default_rng(0)
  cases = []
  for name in "abc":
    image = rng.integers(-200, 300, (9, 8, 7)).astype(np.int16)
    cases.append(WorkingCase(name, image, (image > 100).astype(np.uint8), 0.0, 1.0))
  return cases


def _begin(config, module):
  image = jnp.zeros((1, *config.data.patch, 1))
  return make_initial_state(config, module.init(jax.random.key(0), image, train=False))


def _steps(config, module, data, count=2, state=None):
  """Steps on a resident set, or on a batch for each step."""
  step = jax.jit(lambda state, data: train_step(config, module, state, data))
  states, outcomes = [state or _begin(config, module)], []
  for number in range(count):
    state, outcome = step(states[-1], data[number] if isinstance(data, list) else data)
    states.append(state)
    outcomes.append(outcome)
  return states, outcomes


def _stream(config, count=3):
  """The batches of the first steps: without schedule and crops a step compiles in half the time."""
  cut, batches = make_training_cropper(config, _cases()), []
  for step in range(count):
    blocks = stack_blocks([cut(step, row) for row in range(8)])
    parts = jax.tree.map(lambda x: x.reshape(config.train.accumulate, -1, *x.shape[1:]), blocks)
    batches.append(StreamedBatch(jnp.int32(step), parts))
  return batches


@pytest.fixture(scope="module")
def three_steps():
  """The states of a network with batch statistics, in float64."""
  with jax.enable_x64(True):
    config, _ = _small(small_config())
    return _steps(config, Line(batch_norm=True, dtype=jnp.float64), _stream(config), 3)[0]


def test_a_plain_step_by_hand(config):
  """Down the gradient of its own batch's loss; it tells that loss and that gradient's norm."""
  config = with_keys(
    config, {"optimizer.name": "sgd", "optimizer.momentum": 0.0, "optimizer.weight_decay": 0.0}
  )
  (config, data), module = _small(config), Line()
  states, told = _steps(config, module, data)

  @jax.jit
  @jax.value_and_grad
  def loss_of(params, step):
    batch = make_training_batch(config, data, step)
    return fixed_loss(config, module, {"params": params}, batch)

  for step, (before, after, outcome) in enumerate(zip(states, states[1:], told, strict=False)):
    loss, gradient = loss_of(before.params, step)
    moved = {name: old - 0.05 * gradient[name] for name, old in before.params.items()}
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), after.params, moved)
    assert float(outcome.loss) == pytest.approx(float(loss), rel=1e-5)
    norm = np.hypot(*(float(value[0]) for value in gradient.values()))
    assert float(outcome.gradient_norm) == pytest.approx(norm, rel=1e-4)


def test_a_batch_in_parts_gives_the_update_of_the_whole(config):
  """Float64, with augmentation: loss, gradient and two updates of Adam, to rounding."""
  with jax.enable_x64(True):
    config, data = _small(config)
    whole, told = _steps(config, Line(dtype=jnp.float64), data)
    config = with_keys(config, {"train.accumulate": 4})
    parts, of_parts = _steps(config, Line(dtype=jnp.float64), data)
    for a, b in zip(jax.tree.leaves(told), jax.tree.leaves(of_parts), strict=True):
      np.testing.assert_allclose(b, a, rtol=1e-12)
    for a, b in zip(jax.tree.leaves(whole[-1]), jax.tree.leaves(parts[-1]), strict=True):
      np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12)
    assert abs(float(whole[-1].params["kernel"][0]) - 0.5) > 0.05


def test_batch_norm_sees_a_part_at_a_time(config, three_steps):
  """The running mean is still the whole batch's, the variance lacks what differs between parts."""
  with jax.enable_x64(True):
    config, _ = _small(with_keys(config, {"train.accumulate": 4}))
    parts, _ = _steps(config, Line(batch_norm=True, dtype=jnp.float64), _stream(config, 1), 1)
    a, b = (states[1].batch_stats["BatchNorm_0"] for states in (three_steps, parts))
    np.testing.assert_allclose(b["mean"], a["mean"], rtol=1e-6)
    assert float(a["mean"][0]) > 0.01
    assert 0 < float(a["var"][0] - b["var"][0]) < 0.01


def test_the_average_follows_parameters_and_statistics(config, three_steps):
  """By hand: d = min(decay, (1 + t) / (10 + t)) of the old average, the rest of the new values."""
  config = with_keys(config, {"optimizer.ema_decay": 0.15})
  with jax.enable_x64(True):
    config, _ = _small(config)
    states, _ = _steps(config, Line(batch_norm=True, dtype=jnp.float64), _stream(config), 3)
    assert states[0].variables["params"] == states[0].params
    for read in (
      lambda variables: variables["params"]["kernel"][0],
      lambda variables: variables["batch_stats"]["BatchNorm_0"]["mean"][0],
    ):
      hand = read(states[0].ema)
      for state, decay in zip(states[1:], (0.1, 0.15, 0.15), strict=True):
        raw = read({"params": state.params, "batch_stats": state.batch_stats})
        hand = decay * hand + (1 - decay) * raw
        assert float(read(state.variables)) == pytest.approx(float(hand), rel=1e-6)
        assert float(raw) != pytest.approx(float(hand), rel=1e-6)
    assert three_steps[-1].ema is None
    for a, b in zip(*(jax.tree.leaves(s[-1].params) for s in (three_steps, states)), strict=True):
      np.testing.assert_allclose(b, a, rtol=1e-12)  # the average does not act on the training


@pytest.mark.parametrize("cause", ["gradient", pytest.param("loss", marks=pytest.mark.slow)])
def test_a_broken_step_changes_nothing_and_is_repeated(config, cause):
  """The square root's gradient is infinite where its value is not; a rate of 1e308 breaks both."""
  with jax.enable_x64(True):
    config, data = _small(config)
    if cause == "loss":
      config = with_keys(config, {"optimizer.learning_rate": 1e308, "optimizer.ema_decay": 0.9})
    states, told = _steps(config, Line(root=cause == "gradient", dtype=jnp.float64), data, 4)
    first = 0 if cause == "gradient" else 1  # the state before the first broken step
    finite = [bool(np.isfinite(t.loss) and np.isfinite(t.gradient_norm)) for t in told]
    assert finite == [step < first for step in range(4)]
    assert bool(np.isfinite(told[first].loss)) == (cause == "gradient")
    assert int(states[first].step) == first
    for state in states[first + 1 :]:
      assert_same(state, states[first])
    config = with_keys(config, {"train.skip_nonfinite": 2})
    skipping, _ = _steps(
      config, Line(root=cause == "gradient", dtype=jnp.float64), data, 4, states[first]
    )
    assert [int(state.step) for state in skipping] == [first, first + 1, *[first + 2] * 3]
    assert [int(state.skipped) for state in skipping] == [0, 1, 2, 2, 2]
    assert_same(skipping[-1].params, states[first].params)
    assert_same(skipping[-1].opt_state, states[first].opt_state)


@pytest.mark.parametrize("broken", [False, True])
def test_what_is_fed_for_another_step_than_the_next_changes_nothing(config, broken):
  """As a streaming source goes on with after a step that was broken and not skipped."""
  config, _ = _small(with_keys(config, {"train.skip_nonfinite": 1}))
  cutter, module = make_training_cropper(config, _cases()), Line(root=broken)
  blocks = stack_blocks([cutter(0, row) for row in range(8)])
  blocks = jax.tree.map(lambda x: jnp.asarray(x)[None], blocks)
  step = jax.jit(lambda state, fed: train_step(config, module, state, fed))
  state = _begin(config, module)
  assert_same(step(state, StreamedBatch(jnp.int32(1), blocks))[0], state)
  due, _ = step(state, StreamedBatch(jnp.int32(0), blocks))
  assert (int(due.step), int(due.skipped)) == (1, int(broken))
  assert (due.params["kernel"] == state.params["kernel"]) == broken


def test_what_is_dropped_depends_on_seed_step_and_part_alone(config):
  """And on no key of the step's patches."""

  def bits(step, part, seed=config.seed):
    key = _make_dropout_key(with_keys(config, {"seed": seed}), jnp.int32(step), part)
    return tuple(jax.random.key_data(key).tolist())

  assert bits(3, 1) == bits(3, 1)
  dropped = {bits(step, part) for step in range(4) for part in range(3)}
  assert len(dropped) == 12
  patches = jax.random.key_data(sample_batch(SchedulePlan(4, 64, 2, 2, 0.5), config.seed, 3).key)
  assert not dropped & set(map(tuple, patches.tolist()))
  assert bits(3, 1, config.seed + 1) not in dropped


class _Drawn(nn.Module):
  """A network whose statistics tell what its dropout drew."""

  output_margin = (0, 0, 0)

  @nn.compact
  def __call__(self, x, train):
    drawn = self.variable("batch_stats", "drawn", jnp.zeros, ())
    if train:
      drawn.value = jax.random.uniform(self.make_rng("dropout"))
    return Line()(x, train)


def test_every_part_of_every_step_is_dropped_by_its_own_key(config):
  (config, data), module = _small(with_keys(config, {"train.accumulate": 2})), _Drawn()
  states, _ = _steps(config, module, data)
  variables, image = states[0].variables, jnp.zeros((1, 4, 4, 4, 1))

  def drawn(step, part):
    key = _make_dropout_key(config, jnp.int32(step), part)
    return float(run_forward(module, variables, image, key, 1)[1]["drawn"])

  parts = np.array([[drawn(step, part) for part in range(2)] for step in range(2)])
  assert len(np.unique(parts)) == 4
  means = [float(state.batch_stats["drawn"]) for state in states[1:]]
  np.testing.assert_allclose(means, parts.mean(1), rtol=1e-6)
