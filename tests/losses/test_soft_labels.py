"""Losses of soft labels: those of hard ones where shares are 0 and 1, least where both agree."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.losses.options import LOSSES, LossTerm
from attn_unet_jax.losses.total import load_loss, sum_terms
from tests.losses.cases import logits_of

NAMES = [name for name, entry in LOSSES.items() if entry.takes_shares]


def _shares(*values):
  return jnp.array(values, jnp.float32)[None, :, None, None]


def _value_and_gradient(name, logits, labels):
  return jax.jit(jax.value_and_grad(load_loss(name)))(logits, labels)


def test_the_default_loss_takes_them():
  assert {"bce", "dice"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_shares_of_0_and_1_are_classes(name):
  """With unlabelled voxels among them."""
  rng = np.random.default_rng(0)
  logits = jnp.array(rng.normal(size=(2, 3, 2, 4, 2)), jnp.float32)
  labels = rng.choice([0, 1, UNLABELLED], (2, 3, 2, 4)).astype(np.uint8)
  hard = _value_and_gradient(name, logits, jnp.array(labels))
  soft = _value_and_gradient(name, logits, jnp.array(labels, jnp.float32))
  for x, y in zip(hard, soft, strict=True):
    np.testing.assert_allclose(y, x, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("share", [0.25, 0.6])
def test_a_loss_is_least_where_the_probability_is_the_share(name, share):
  """A product of both would be best at a probability of 1 for every share above a half."""
  tried = np.linspace(0.05, 0.95, 19)
  loss = jax.jit(load_loss(name))
  losses = [float(loss(logits_of((1 - p, p), (1 - p, p)), _shares(share, share))) for p in tried]
  assert tried[np.argmin(losses)] == pytest.approx(share)


def test_by_hand():
  logits, labels = logits_of((0.8, 0.2), (0.4, 0.6)), _shares(0.5, 1.0)
  expected = 1 - (2 * (0.2 + 0.6) + 1e-5) / (0.8 + 1.5 + 1e-5)
  assert load_loss("dice")(logits, labels) == pytest.approx(expected, abs=1e-6)
  expected = (-0.5 * np.log(0.2) - 0.5 * np.log(0.8) - np.log(0.6)) / 2
  assert load_loss("bce")(logits, labels) == pytest.approx(expected, abs=1e-6)


def test_shares_are_of_one_class():
  logits = jnp.zeros((1, 2, 2, 2, 3))
  with pytest.raises(ValueError, match="soft labels are of one class, not of 2"):
    sum_terms([LossTerm("dice", 1.0)], logits, jnp.zeros((1, 2, 2, 2)))
