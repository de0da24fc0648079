"""What holds for every loss, and their weighted sum."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.losses import cross_entropy, dice
from attn_unet_jax.losses.options import (
  LOSSES,
  BalanceOptions,
  ClassWeightOptions,
  FocalOptions,
  LossTerm,
  TverskyOptions,
)
from attn_unet_jax.losses.total import load_loss, sum_terms
from attn_unet_jax.runtime.errors import UserError
from tests.losses.cases import labels_of

# Those of logits; that of the maps of `hnn` is tested in test_side.py.
NAMES = [name for name, entry in LOSSES.items() if not entry.reads_sides]


@pytest.mark.parametrize("name", NAMES)
def test_jit_and_vmap(name, case):
  """A batch of batches, compiled, equals the loop; and what Python computes of all at once."""
  logits, labels = case
  batches = (logits[:, None], labels[:, None])
  together, one = jax.jit(jax.vmap(load_loss(name)))(*batches), jax.jit(load_loss(name))
  alone = [one(*pair) for pair in zip(*batches, strict=True)]
  np.testing.assert_allclose(together, np.stack(alone), rtol=1e-6)
  combine = np.sum if name == "vnet_caffe_dice" else np.mean
  np.testing.assert_allclose(load_loss(name)(*case), combine(alone), rtol=1e-5)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"vnet_caffe_dice"}))
def test_gradients(name, case):
  with jax.enable_x64(True):
    logits, labels = jnp.array(np.array(case[0]), jnp.float64), jnp.array(np.array(case[1]))
    loss = jax.jit(lambda x: load_loss(name)(x, labels))
    assert loss(logits).dtype == jnp.float64
    check_grads(loss, (logits,), order=1, modes=("fwd", "rev"), atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_extreme_logits_stay_finite(name, size):
  logits = jnp.array([-size, size, 0.0, size, -size, 0.0]).reshape(1, 2, 1, 1, 3)
  value, slope = jax.jit(jax.value_and_grad(load_loss(name)))(logits, labels_of(0, 1))
  assert jnp.isfinite(value)
  assert jnp.all(jnp.isfinite(slope))


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_computed_in_float32(name, case):
  logits = case[0].astype(jnp.bfloat16)
  loss = load_loss(name)(logits, case[1])
  assert loss.dtype == jnp.float32
  assert loss == load_loss(name)(logits.astype(jnp.float32), case[1])


def test_total_is_the_weighted_sum(case):
  value, terms = sum_terms([LossTerm("dice", 0.5), LossTerm("bce", 2.0)], *case)
  assert list(terms) == ["dice", "bce"]
  expected = 0.5 * dice.soft_dice(*case) + 2 * cross_entropy.binary_cross_entropy(*case)
  assert value == pytest.approx(float(expected), rel=1e-6)
  assert value.dtype == jnp.float32


def test_total_refuses_what_is_no_loss(case):
  with pytest.raises(UserError, match=r"^config\.loss='fokal': there is no module 'fokal'"):
    sum_terms([LossTerm("fokal", 1.0)], *case)
  with pytest.raises(ValueError, match="no loss term"):
    sum_terms([], *case)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_that_do_not_fit(name, case):
  logits, labels = case
  fewer, more = labels[..., :-1], jnp.concatenate([labels, labels], -1)
  for bad in ((logits, fewer), (logits, more), (logits[..., :1], labels), (logits[0], labels[0])):
    with pytest.raises(ValueError, match="do not fit"):
      load_loss(name)(*bad)


@pytest.mark.parametrize("name", NAMES)
def test_unlabelled_voxels_do_not_exist(name, case):
  """As if cut off, in value and in gradient; a batch of nothing else is finite."""
  logits, labels = case
  sparse = labels.at[:, 1].set(UNLABELLED).astype(jnp.uint8)
  kept = jnp.array([0, 2])
  both = jax.jit(jax.value_and_grad(load_loss(name)))
  value, slope = both(logits, sparse)
  expected, expected_slope = both(logits[:, kept], labels[:, kept])
  np.testing.assert_allclose(value, expected, rtol=1e-5)
  np.testing.assert_allclose(slope[:, kept], expected_slope, rtol=1e-4, atol=1e-7)
  assert not slope[:, 1].any()
  value, slope = both(logits, jnp.full_like(sparse, UNLABELLED))
  assert jnp.isfinite(value)
  assert not slope.any()


def test_total_passes_the_options_on(case):
  options = {
    "weighted_ce": ClassWeightOptions((1.0, 2.0, 3.0)),
    "focal": FocalOptions(1.0),
    "tversky": TverskyOptions(0.9, 0.4),
    "balanced_bce": BalanceOptions(0.2),
  }
  _, terms = sum_terms([LossTerm(name, 1.0, options[name]) for name in options], *case)
  assert terms["weighted_ce"] == cross_entropy.weighted_ce(*case, class_weights=(1.0, 2.0, 3.0))
  assert terms["focal"] == cross_entropy.focal_loss(*case, gamma=1.0)
  assert terms["balanced_bce"] == cross_entropy.balanced_bce(*case, foreground=0.2)
  assert terms["tversky"] == dice.tversky_loss(*case, alpha=0.9, beta=0.4)


@pytest.mark.parametrize("name", NAMES)
def test_which_losses_are_the_mean_of_their_parts_losses(name):
  """Two samples, of which one has unlabelled voxels."""
  rng = np.random.default_rng(0)
  logits = jnp.array(rng.normal(size=(2, 3, 2, 4, 3)), jnp.float32)
  labels = jnp.array(rng.integers(0, 3, (2, 3, 2, 4)), jnp.int32)
  labels = labels.at[0, 0].set(UNLABELLED)
  options = {"class_weights": (1.0, 2.0, 5.0)} if name == "weighted_ce" else {}
  loss = jax.jit(functools.partial(load_loss(name), **options))
  parts = [loss(logits[i : i + 1], labels[i : i + 1]) for i in range(2)]
  same = math.isclose(float(loss(logits, labels)), float(sum(parts)) / 2, rel_tol=1e-5)
  assert same == (not LOSSES[name].over_batch)
