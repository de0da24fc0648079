"""Partial labels: the loss is that of a network with the classes that a data set labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.labels import UNLABELLED, rest_value
from attn_unet_jax.losses.options import LOSSES, LossTerm
from attn_unet_jax.losses.total import load_loss, sum_terms

NAMES = [name for name, entry in LOSSES.items() if entry.partial]
RNG = np.random.default_rng(0)
LOGITS = jnp.array(RNG.normal(size=(3, 3, 2, 4, 4)), jnp.float32)  # background and three classes
TRUTH = RNG.choice([0, 1, 2, 3, UNLABELLED], (3, 3, 2, 4))
# The first sample is of a set that labels all classes, the second of one that labels the second
# class alone, the third of one without the first class.
NAMED = ((False, True, False), (False, True, True))
LABELS = TRUTH.copy()
LABELS[1][(TRUTH[1] != 2) & (TRUTH[1] != UNLABELLED)] = rest_value(0)
LABELS[2][TRUTH[2] <= 1] = rest_value(1)


def _loss(name, logits, labels=LABELS, named=NAMED):
  terms = (LossTerm(name, 1.0, LOSSES[name].options()),)
  return sum_terms(terms, logits, jnp.array(labels, jnp.uint8), named=named)[0]


def _smaller(name, logits):
  """Each sample by a network of its own classes, whose other logits are added to class 0."""

  def of_classes(sample, values, kept):
    rest = [k for k in range(4) if k not in kept]
    merged = [jax.nn.logsumexp(logits[sample][..., np.array(rest)], -1)]
    few = jnp.stack(merged + [logits[sample][..., k] for k in kept], -1)
    label = np.zeros_like(values) + UNLABELLED * (values == UNLABELLED)
    for index, k in enumerate(kept):
      label[values == k] = index + 1
    return load_loss(name)(few[None], jnp.array(label[None], jnp.uint8))

  parts = (((1, 2, 3), TRUTH[0]), ((2,), TRUTH[1]), ((2, 3), TRUTH[2]))
  return jnp.mean(
    jnp.stack([of_classes(n, values, kept) for n, (kept, values) in enumerate(parts)])
  )


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_and_its_slope_are_those_of_smaller_networks(name):
  found, slope = jax.jit(jax.value_and_grad(lambda x: _loss(name, x)))(LOGITS)
  expected, right = jax.jit(jax.value_and_grad(lambda x: _smaller(name, x)))(LOGITS)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  np.testing.assert_allclose(slope, right, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_where_all_classes_are_labelled_it_is_the_loss_to_the_bit(name):
  labels = jnp.array(TRUTH, jnp.uint8)
  assert _loss(name, LOGITS, TRUTH, [(True, True, True)]) == load_loss(name)(LOGITS, labels)


@pytest.mark.parametrize("name", NAMES)
def test_large_logits_stay_finite(name):
  value, slope = jax.jit(jax.value_and_grad(lambda x: _loss(name, x)))(1e4 * LOGITS)
  assert jnp.isfinite(value)
  assert jnp.all(jnp.isfinite(slope))
