"""Losses against hand-computed values, identities and finite differences."""

import functools
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


PARTIAL = ("squared_dice", "vnet_caffe_dice", "generalised_dice", "tversky", "weighted_ce", "focal")


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
  combine = np.sum if name == "vnet_caffe_dice" else np.mean
  np.testing.assert_allclose(losses.LOSSES[name](*case), combine(alone), rtol=1e-5)


@pytest.mark.parametrize("name", sorted(set(losses.LOSSES) - {"vnet_caffe_dice"}))
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
  with pytest.raises(ValueError, match=r"unknown loss term fokal.*dice, bce, ce, reference_dice"):
    losses.total(*case, {"fokal": 1.0})
  with pytest.raises(ValueError, match="no loss term"):
    losses.total(*case, {})


@pytest.mark.parametrize("name", losses.LOSSES)
def test_shapes_that_do_not_fit(name, case):
  logits, labels = case
  for bad in ((logits, labels[..., :-1]), (logits[..., :1], labels), (logits[0], labels[0])):
    with pytest.raises(ValueError, match="do not fit"):
      losses.LOSSES[name](*bad)


def test_squared_dice_by_hand():
  expected = 1 - (2 * 1.1 + 1e-5) / (0.2**2 + 0.6**2 + 0.5**2 + 2 + 1e-5)
  assert losses.squared_dice(*TWO) == pytest.approx(expected, abs=1e-6)


def test_generalised_dice_by_hand():
  weights = (1 / 1**2, 1 / 2**2)  # one background voxel, two of the foreground
  overlap = weights[0] * 0.8 + weights[1] * 1.1
  mass = weights[0] * (1.7 + 1) + weights[1] * (1.3 + 2)
  assert losses.generalised_dice(*TWO) == pytest.approx(1 - 2 * overlap / mass, abs=1e-6)


def test_generalised_dice_gives_an_absent_class_the_largest_present_weight():
  logits = _logits((0.7, 0.2, 0.1), (0.3, 0.6, 0.1), (0.2, 0.6, 0.2))
  overlap = 1 * 0.7 + 0.25 * 1.2
  mass = 1 * (1.2 + 1) + 0.25 * (1.4 + 2) + 1 * 0.4
  expected = 1 - 2 * overlap / mass
  assert losses.generalised_dice(logits, _labels(0, 1, 1)) == pytest.approx(expected, abs=1e-6)


def test_tversky_by_hand():
  false_positive, false_negative = 0.2, 0.4 + 0.5
  expected = 1 - 1.1 / (1.1 + 0.3 * false_positive + 0.7 * false_negative)
  assert losses.tversky(*TWO) == pytest.approx(expected, abs=1e-5)
  expected = 1 - 1.1 / (1.1 + 1.0 * false_positive + 0.5 * false_negative)
  assert losses.tversky(*TWO, alpha=1.0, beta=0.5) == pytest.approx(expected, abs=1e-5)


def test_tversky_of_equal_weights_is_dice(case):
  halves = losses.tversky(*case, alpha=0.5, beta=0.5)
  np.testing.assert_allclose(halves, losses.soft_dice(*case), atol=1e-5)


def test_weighted_ce_by_hand():
  costs = [-math.log(0.8), -math.log(0.6), -math.log(0.5)]
  expected = (0.1 * costs[0] + 2 * costs[1] + 2 * costs[2]) / 4.1
  value = losses.weighted_ce(*TWO, class_weights=(0.1, 2.0))
  assert value == pytest.approx(expected, abs=1e-6)
  assert losses.weighted_ce(*TWO) == pytest.approx(sum(costs) / 3, abs=1e-6)
  with pytest.raises(ValueError, match="3 class weights for 2 classes"):
    losses.weighted_ce(*TWO, class_weights=(1.0, 1.0, 1.0))


def test_focal_by_hand(case):
  terms = [(1 - q) ** 2 * -math.log(q) for q in (0.8, 0.6, 0.5)]
  assert losses.focal(*TWO) == pytest.approx(sum(terms) / 3, abs=1e-6)
  plain = losses.focal(*case, gamma=0.0)
  np.testing.assert_allclose(plain, losses.cross_entropy(*case), rtol=1e-6)


def test_focal_of_a_root_has_a_finite_slope_where_it_is_certain():
  logits = jnp.array([100.0, -100.0]).reshape(1, 1, 1, 1, 2)
  slope = jax.jit(jax.grad(lambda x: losses.focal(x, _labels(0), gamma=0.5)))(logits)
  assert jnp.all(jnp.isfinite(slope))


def test_released_vnet_dice_by_hand():
  """Two voxels of foreground, one found: I = 1, U = 1 + 2."""
  logits, labels = _logits((0.8, 0.2), (0.4, 0.6), (0.7, 0.3)), _labels(0, 1, 1)
  assert losses.vnet_caffe_dice(logits, labels) == pytest.approx(1 - 2 / 3, abs=1e-5)
  slope = jax.jit(jax.grad(losses.vnet_caffe_dice))(logits, labels)[0, :, 0, 0]
  for row, p, g in zip(slope, (0.2, 0.6, 0.3), (0, 1, 1), strict=True):
    rise = 2 * (g * 3 - 2 * p * 1) / 9
    through_softmax = 2 * rise * p * (1 - p)  # +rise on the background, -rise on the foreground
    np.testing.assert_allclose(row, [through_softmax, -through_softmax], atol=1e-5)


def test_released_vnet_dice_of_several_classes(case):
  """The written formula, class by class, against the softmax's own derivative."""
  logits, labels = case
  p, pull = jax.vjp(jax.nn.softmax, logits)
  p = np.asarray(p, np.float64)
  r, cotangent = p.argmax(-1), np.zeros_like(p)
  value = 0.0
  for n in range(2):
    for k in (1, 2):
      g = np.asarray(labels[n]) == k
      overlap, union = np.sum(g & (r[n] == k)), np.sum(g) + np.sum(r[n] == k) + 1e-5
      rise = 2 * (g * union - 2 * p[n, ..., k] * overlap) / union**2 / 2
      cotangent[n, ..., k] -= rise
      cotangent[n, ..., 0] += rise
      value += (1 - 2 * overlap / union) / 2
  ours, slope = jax.jit(jax.value_and_grad(losses.vnet_caffe_dice))(logits, labels)
  assert ours == pytest.approx(value, abs=1e-5)
  np.testing.assert_allclose(slope, pull(jnp.asarray(cotangent, jnp.float32))[0], atol=1e-6)


@pytest.mark.parametrize("name", PARTIAL)
def test_unlabelled_voxels_do_not_exist(name, case):
  """As if cut off, in value and in gradient; a batch of nothing else is finite."""
  logits, labels = case
  sparse = labels.at[:, 1].set(losses.UNLABELLED).astype(jnp.uint8)
  kept = jnp.array([0, 2])
  both = jax.jit(jax.value_and_grad(losses.LOSSES[name]))
  value, slope = both(logits, sparse)
  expected, expected_slope = both(logits[:, kept], labels[:, kept])
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  np.testing.assert_allclose(slope[:, kept], expected_slope, rtol=1e-4, atol=1e-7)
  assert not slope[:, 1].any()
  value, slope = both(logits, jnp.full_like(sparse, losses.UNLABELLED))
  assert jnp.isfinite(value)
  assert not slope.any()


def test_total_passes_the_options_on(case):
  options = {"class_weights": (1.0, 2.0, 3.0), "focal_gamma": 1.0, "tversky_alpha": 0.9}
  names = {"weighted_ce": 1.0, "focal": 1.0, "tversky": 1.0}
  _, terms = losses.total(*case, names, **options)
  assert terms["weighted_ce"] == losses.weighted_ce(*case, class_weights=(1.0, 2.0, 3.0))
  assert terms["focal"] == losses.focal(*case, gamma=1.0)
  assert terms["tversky"] == losses.tversky(*case, alpha=0.9)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_which_losses_are_the_mean_of_their_parts_losses(name):
  """Two samples, of which one has unlabelled voxels where the loss knows such."""
  rng = np.random.default_rng(0)
  logits = jnp.array(rng.normal(size=(2, 3, 2, 4, 3)), jnp.float32)
  labels = jnp.array(rng.integers(0, 3, (2, 3, 2, 4)), jnp.int32)
  if name in PARTIAL:
    labels = labels.at[0, 0].set(losses.UNLABELLED)
  options = {"class_weights": (1.0, 2.0, 5.0)} if name == "weighted_ce" else {}
  loss = functools.partial(losses.LOSSES[name], **options)
  parts = [loss(logits[i : i + 1], labels[i : i + 1]) for i in range(2)]
  same = math.isclose(float(loss(logits, labels)), float(sum(parts)) / 2, rel_tol=1e-5)
  assert same == (name not in losses.OVER_THE_BATCH)
