"""Losses of overlap against hand-computed values and identities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.losses import dice as module
from tests.losses.cases import TWO, compile_losses, labels_of, logits_of

dice = compile_losses(module)


def test_soft_dice_by_hand():
  expected = 1 - (2 * 1.1 + 1e-5) / (1.3 + 2 + 1e-5)
  assert dice.soft_dice(*TWO) == pytest.approx(expected, abs=1e-6)


def test_reference_dice_by_hand():
  background = 2 * (0.8 + 0.01) / (1.7 + 1 + 0.01)
  foreground = 2 * (1.1 + 0.01) / (1.3 + 2 + 0.01)
  expected = 1 - (background + foreground) / 2
  assert dice.reference_dice(*TWO) == pytest.approx(expected, abs=1e-6)


def test_dice_is_a_mean_over_samples_and_classes(case):
  """Loop over samples and foreground classes in NumPy."""
  logits, labels = (np.array(a, np.float64) for a in case)
  p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  scores = []
  for n in range(2):
    for k in (1, 2):
      g = labels[n] == k
      scores.append((2 * p[n, ..., k][g].sum() + 1e-5) / (p[n, ..., k].sum() + g.sum() + 1e-5))
  assert dice.soft_dice(*case) == pytest.approx(1 - np.mean(scores), abs=1e-6)


def test_absent_class():
  """Absent and unpredicted: 2.0 in the reference form, 1.0 in the standard one."""
  labels = np.zeros((1, 2, 2, 2), np.int32)
  logits = np.float32(100 * np.eye(3)[labels])
  background = 2 * 8.01 / 16.01
  assert dice.reference_dice(logits, labels) == pytest.approx(1 - (background + 4) / 3, abs=1e-5)
  assert dice.soft_dice(logits, labels) == pytest.approx(0, abs=1e-6)
  predicted = np.float32(100 * np.eye(2)[labels + 1])
  assert dice.soft_dice(predicted, labels) == pytest.approx(1, abs=1e-5)
  assert dice.reference_dice(predicted, labels) == pytest.approx(1 - 0.02 / 8.01, abs=1e-5)


def test_squared_dice_by_hand():
  expected = 1 - (2 * 1.1 + 1e-5) / (0.2**2 + 0.6**2 + 0.5**2 + 2 + 1e-5)
  assert dice.squared_dice(*TWO) == pytest.approx(expected, abs=1e-6)


def test_dice_hinge_by_hand():
  """21 where nothing overlaps; a hinge each below 0.1 and 0.01; neither from 0.1 on."""
  apart = logits_of((1e-30, 1.0), (1e-30, 1.0)), labels_of(0, 0)  # the foreground is absent
  assert dice.dice_hinge(*apart) == pytest.approx(21, abs=1e-4)
  d = (1.6 / (0.8**2 + 0.4**2 + 0.5**2 + 1 + 1e-5), 2.2 / (0.2**2 + 0.6**2 + 0.5**2 + 2 + 1e-5))
  assert dice.dice_hinge(*TWO) == pytest.approx(1 - sum(d) / 2, abs=1e-5)
  logits, labels = logits_of((0.99, 0.01), (0.995, 0.005)), labels_of(0, 1)
  low = 2 * 0.005 / (0.01**2 + 0.005**2 + 1 + 1e-5)  # 0.009999
  high = 2 * 0.99 / (0.99**2 + 0.995**2 + 1 + 1e-5)
  hinges = 10 * (10 * low - 1) ** 2 + 10 * (100 * low - 1) ** 2
  expected = (1 - high + 1 - low + hinges) / 2
  assert dice.dice_hinge(logits, labels) == pytest.approx(expected, abs=1e-4)


def test_generalised_dice_by_hand():
  weights = (1 / 1**2, 1 / 2**2)  # one background voxel, two of the foreground
  overlap = weights[0] * 0.8 + weights[1] * 1.1
  mass = weights[0] * (1.7 + 1) + weights[1] * (1.3 + 2)
  assert dice.generalised_dice(*TWO) == pytest.approx(1 - 2 * overlap / mass, abs=1e-6)


def test_generalised_dice_gives_an_absent_class_the_largest_present_weight():
  """Two voxels of the background, three of class 1, none of class 2: 1/4, 1/9, and 1/4."""
  probabilities = np.array(
    [(0.7, 0.2, 0.1), (0.8, 0.1, 0.1), (0.3, 0.6, 0.1), (0.2, 0.6, 0.2), (0.1, 0.5, 0.4)]
  )
  background, foreground, absent = probabilities.sum(0)
  overlap = (0.7 + 0.8) / 4 + (0.6 + 0.6 + 0.5) / 9
  mass = (background + 2) / 4 + (foreground + 3) / 9 + absent / 4
  loss = dice.generalised_dice(logits_of(*probabilities), labels_of(0, 0, 1, 1, 1))
  assert loss == pytest.approx(1 - 2 * overlap / mass, abs=1e-6)


def test_tversky_by_hand():
  false_positive, false_negative = 0.2, 0.4 + 0.5
  expected = 1 - 1.1 / (1.1 + 0.3 * false_positive + 0.7 * false_negative)
  assert dice.tversky_loss(*TWO) == pytest.approx(expected, abs=1e-5)
  expected = 1 - 1.1 / (1.1 + 1.0 * false_positive + 0.5 * false_negative)
  assert dice.tversky_loss(*TWO, alpha=1.0, beta=0.5) == pytest.approx(expected, abs=1e-5)


def test_tversky_of_equal_weights_is_dice(case):
  halves = dice.tversky_loss(*case, alpha=0.5, beta=0.5)
  np.testing.assert_allclose(halves, dice.soft_dice(*case), atol=1e-5)


@pytest.mark.parametrize(
  ("loss", "p"),
  [
    (dice.soft_dice, 1e-5),
    (dice.squared_dice, 1e-5**0.5),
    (functools.partial(dice.tversky_loss, alpha=1.0), 1e-5),
  ],
)
def test_smoothing_by_hand(loss, p):
  """Where the prediction of an absent class weighs what the smoothing does, it scores a half."""
  with jax.enable_x64(True):
    logits = jnp.array([0.0, np.log(p / (1 - p))]).reshape(1, 1, 1, 1, 2)
    assert float(loss(logits, labels_of(0))) == pytest.approx(1 / 2, rel=1e-9)


def test_smoothing_of_the_hinged_dice_by_hand():
  """Two classes, both found for certain in three voxels in all: d = 2 V / (2 V + 1e-5)."""
  with jax.enable_x64(True):
    logits = jnp.array([40.0, -40.0, -40.0, 40.0, 40.0, -40.0]).reshape(1, 3, 1, 1, 2)
    expected = (1e-5 / (4 + 1e-5) + 1e-5 / (2 + 1e-5)) / 2
    value = float(dice.dice_hinge(logits, labels_of(0, 1, 0)))
  assert value == pytest.approx(expected, rel=1e-9)
