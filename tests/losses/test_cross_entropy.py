"""Cross-entropies against hand-computed values and identities."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.losses import cross_entropy as module
from tests.losses.cases import TWO, compile_losses, labels_of, logits_of

cross_entropy = compile_losses(module)


def test_cross_entropies_by_hand():
  expected = -(math.log(0.8) + math.log(0.6) + math.log(0.5)) / 3
  assert cross_entropy.cross_entropy(*TWO) == pytest.approx(expected, abs=1e-6)
  assert cross_entropy.binary_cross_entropy(*TWO) == pytest.approx(expected, abs=1e-6)


def test_binary_cross_entropy_joins_the_foreground_classes():
  logits = logits_of((0.4, 0.3, 0.3), (0.9, 0.06, 0.04))
  expected = -(math.log(0.6) + math.log(0.1)) / 2
  assert cross_entropy.binary_cross_entropy(logits, labels_of(2, 1)) == pytest.approx(
    expected, abs=1e-6
  )
  expected = -(math.log(0.3) + math.log(0.06)) / 2
  assert cross_entropy.cross_entropy(logits, labels_of(2, 1)) == pytest.approx(expected, abs=1e-6)


def test_binary_equals_cross_entropy_for_two_classes(case):
  logits, labels = case
  two = logits[..., :2] * 5, labels % 2
  np.testing.assert_allclose(
    cross_entropy.binary_cross_entropy(*two), cross_entropy.cross_entropy(*two), rtol=1e-6
  )


def test_small_probabilities_are_not_lost():
  """A foreground probability of e^-40 costs 40 nats; 1 - p(background) would round to 0."""
  logits = jnp.array([20.0, -20.0]).reshape(1, 1, 1, 1, 2)
  assert cross_entropy.binary_cross_entropy(logits, labels_of(1)) == pytest.approx(40, rel=1e-6)
  assert cross_entropy.binary_cross_entropy(logits, labels_of(0)) == pytest.approx(
    math.exp(-40), rel=1e-5
  )


def test_balanced_bce_by_hand():
  """One background voxel of three: it weighs 2/3, a foreground voxel 1/3."""
  costs = [-math.log(0.8), -math.log(0.6), -math.log(0.5)]
  expected = (2 / 3 * costs[0] + 1 / 3 * (costs[1] + costs[2])) / 3
  assert cross_entropy.balanced_bce(*TWO) == pytest.approx(expected, abs=1e-6)
  expected = (0.1 * costs[0] + 0.9 * (costs[1] + costs[2])) / 3
  assert cross_entropy.balanced_bce(*TWO, foreground=0.1) == pytest.approx(expected, abs=1e-6)
  # The only labelled voxel is foreground: all is, and none of it counts.
  assert cross_entropy.balanced_bce(TWO[0], labels_of(255, 1, 255)) == 0


def test_weighted_ce_by_hand():
  costs = [-math.log(0.8), -math.log(0.6), -math.log(0.5)]
  expected = (0.1 * costs[0] + 2 * costs[1] + 2 * costs[2]) / 4.1
  value = cross_entropy.weighted_ce(*TWO, class_weights=(0.1, 2.0))
  assert value == pytest.approx(expected, abs=1e-6)
  assert cross_entropy.weighted_ce(*TWO) == pytest.approx(sum(costs) / 3, abs=1e-6)
  with pytest.raises(ValueError, match="3 class weights for 2 classes"):
    cross_entropy.weighted_ce(*TWO, class_weights=(1.0, 1.0, 1.0))


def test_what_is_not_asked_for_may_be_infinitely_improbable():
  """Its logarithm is minus infinity in float32, and 0 times that would be no number."""
  logits = jnp.array([3e38, -3e38]).reshape(1, 1, 1, 1, 2)
  assert cross_entropy.cross_entropy(logits, labels_of(0)) == 0
  assert cross_entropy.focal_loss(logits, labels_of(0)) == 0
  assert cross_entropy.weighted_ce(logits, labels_of(0)) == 0
  both = jnp.concatenate([logits, logits], axis=1)
  assert cross_entropy.weighted_ce(both, labels_of(0, 1), class_weights=(1.0, 0.0)) == 0


def test_focal_by_hand(case):
  terms = [(1 - q) ** 2 * -math.log(q) for q in (0.8, 0.6, 0.5)]
  assert cross_entropy.focal_loss(*TWO) == pytest.approx(sum(terms) / 3, abs=1e-6)
  plain = cross_entropy.focal_loss(*case, gamma=0.0)
  np.testing.assert_allclose(plain, cross_entropy.cross_entropy(*case), rtol=1e-6)


def test_focal_of_a_root_has_a_finite_slope_where_it_is_certain():
  logits = jnp.array([100.0, -100.0]).reshape(1, 1, 1, 1, 2)
  slope = jax.jit(jax.grad(lambda x: cross_entropy.focal_loss(x, labels_of(0), gamma=0.5)))(logits)
  assert jnp.all(jnp.isfinite(slope))
