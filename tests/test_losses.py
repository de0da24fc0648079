"""Losses against hand-computed values, identities and finite differences."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from attn_unet_jax import losses


def _logits(*probabilities):
  """Logits [1, V, 1, 1, K] whose softmax is the given probability vectors, one a voxel."""
  return jnp.log(jnp.array(probabilities, jnp.float32))[None, :, None, None, :]


def _labels(*values):
  return jnp.array(values, jnp.uint8)[None, :, None, None]


@pytest.fixture(scope="module")
def case():
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(2, 3, 2, 4, 3)).astype(np.float32)
  return jnp.array(logits), jnp.array(rng.integers(0, 3, (2, 3, 2, 4)), jnp.int32)


TWO = (_logits((0.8, 0.2), (0.4, 0.6), (0.5, 0.5)), _labels(0, 1, 1))


def test_soft_dice_by_hand():
  expected = 1 - (2 * 1.1 + 1e-5) / (1.3 + 2 + 1e-5)
  assert losses.soft_dice(*TWO) == pytest.approx(expected, abs=1e-6)


def test_reference_dice_by_hand():
  background = 2 * (0.8 + 0.01) / (1.7 + 1 + 0.01)
  foreground = 2 * (1.1 + 0.01) / (1.3 + 2 + 0.01)
  expected = 1 - (background + foreground) / 2
  assert losses.reference_dice(*TWO) == pytest.approx(expected, abs=1e-6)


def test_cross_entropies_by_hand():
  expected = -(math.log(0.8) + math.log(0.6) + math.log(0.5)) / 3
  assert losses.cross_entropy(*TWO) == pytest.approx(expected, abs=1e-6)
  assert losses.binary_cross_entropy(*TWO) == pytest.approx(expected, abs=1e-6)


def test_binary_cross_entropy_joins_the_foreground_classes():
  logits = _logits((0.5, 0.2, 0.3), (0.9, 0.06, 0.04))
  expected = -(math.log(0.5) + math.log(0.1)) / 2
  assert losses.binary_cross_entropy(logits, _labels(2, 1)) == pytest.approx(expected, abs=1e-6)
  expected = -(math.log(0.3) + math.log(0.06)) / 2
  assert losses.cross_entropy(logits, _labels(2, 1)) == pytest.approx(expected, abs=1e-6)


def test_dice_is_a_mean_over_samples_and_classes(case):
  """Loop over samples and foreground classes in NumPy."""
  logits, labels = (np.array(a, np.float64) for a in case)
  p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  scores = []
  for n in range(2):
    for k in (1, 2):
      g = labels[n] == k
      scores.append((2 * p[n, ..., k][g].sum() + 1e-5) / (p[n, ..., k].sum() + g.sum() + 1e-5))
  assert losses.soft_dice(*case) == pytest.approx(1 - np.mean(scores), abs=1e-6)


def test_binary_equals_cross_entropy_for_two_classes(case):
  logits, labels = case
  two = logits[..., :2] * 5, labels % 2
  np.testing.assert_allclose(
    losses.binary_cross_entropy(*two), losses.cross_entropy(*two), rtol=1e-6
  )


def test_absent_class():
  """Absent and unpredicted: 2.0 in the reference form, 1.0 in the standard one."""
  logits = jnp.zeros((1, 2, 2, 2, 3)).at[..., 0].set(100.0)
  labels = jnp.zeros((1, 2, 2, 2), jnp.int32)
  background = 2 * 8.01 / 16.01
  assert losses.reference_dice(logits, labels) == pytest.approx(1 - (background + 4) / 3, abs=1e-5)
  assert losses.soft_dice(logits, labels) == pytest.approx(0, abs=1e-6)
  predicted = jnp.zeros((1, 2, 2, 2, 2)).at[..., 1].set(100.0)
  assert losses.soft_dice(predicted, labels) == pytest.approx(1, abs=1e-5)
  assert losses.reference_dice(predicted, labels) == pytest.approx(1 - 0.02 / 8.01, abs=1e-5)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_jit_and_vmap(name, case):
  """A batch of batches, compiled, equals the loop."""
  logits, labels = case
  batches = (logits[:, None], labels[:, None])
  together = jax.jit(jax.vmap(losses.LOSSES[name]))(*batches)
  alone = [losses.LOSSES[name](*pair) for pair in zip(*batches, strict=True)]
  np.testing.assert_allclose(together, jnp.stack(alone), rtol=1e-6)
  np.testing.assert_allclose(losses.LOSSES[name](*case), np.mean(alone), rtol=1e-5)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_gradients(name, case):
  with jax.enable_x64(True):
    logits, labels = jnp.array(np.array(case[0]), jnp.float64), jnp.array(np.array(case[1]))
    assert losses.LOSSES[name](logits, labels).dtype == jnp.float64
    loss = jax.jit(lambda x: losses.LOSSES[name](x, labels))
    check_grads(loss, (logits,), order=1, modes=("fwd", "rev"), atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_extreme_logits_stay_finite(name, size):
  logits = jnp.array([-size, size, 0.0, size, -size, 0.0]).reshape(1, 2, 1, 1, 3)
  value, slope = jax.value_and_grad(losses.LOSSES[name])(logits, _labels(0, 1))
  assert jnp.isfinite(value)
  assert jnp.all(jnp.isfinite(slope))


def test_small_probabilities_are_not_lost():
  """A foreground probability of e^-40 costs 40 nats; 1 - p(background) would round to 0."""
  logits = jnp.array([20.0, -20.0]).reshape(1, 1, 1, 1, 2)
  assert losses.binary_cross_entropy(logits, _labels(1)) == pytest.approx(40, rel=1e-6)
  assert losses.binary_cross_entropy(logits, _labels(0)) == pytest.approx(math.exp(-40), rel=1e-5)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_bfloat16_is_computed_in_float32(name, case):
  logits = case[0].astype(jnp.bfloat16)
  loss = losses.LOSSES[name](logits, case[1])
  assert loss.dtype == jnp.float32
  assert loss == losses.LOSSES[name](logits.astype(jnp.float32), case[1])


def test_total_is_the_weighted_sum(case):
  value, terms = losses.total(*case, {"dice": 0.5, "bce": 2.0})
  assert list(terms) == ["dice", "bce"]
  expected = 0.5 * losses.soft_dice(*case) + 2 * losses.binary_cross_entropy(*case)
  assert value == pytest.approx(float(expected), rel=1e-6)
  assert value.dtype == jnp.float32


def test_total_names_the_known_terms(case):
  with pytest.raises(ValueError, match=r"unknown loss term focal.*dice, bce, ce, reference_dice"):
    losses.total(*case, {"focal": 1.0})
  with pytest.raises(ValueError, match="no loss term"):
    losses.total(*case, {})


@pytest.mark.parametrize("name", losses.LOSSES)
def test_shapes_that_do_not_fit(name, case):
  logits, labels = case
  for bad in ((logits, labels[..., :-1]), (logits[..., :1], labels), (logits[0], labels[0])):
    with pytest.raises(ValueError, match="do not fit"):
      losses.LOSSES[name](*bad)
