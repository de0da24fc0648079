"""Losses of overlap: Dice in its published forms, and Tversky.

For arguments, result and errors of every loss, and for p, g, n and k in the formulas, see
`attn_unet_jax.losses`. eps is 1e-5.
"""

import jax.numpy as jnp
from jax import Array

from attn_unet_jax.losses.operands import VOXELS, are_soft, softmax_and_one_hot

# The first is that of V-Net's released layer, the other that of the Attention U-Net's code.
SMOOTHING = 1e-5
RELEASED_SMOOTHING = 0.01


def soft_dice(logits: Array, labels: Array) -> Array:
  """Computes the soft Dice loss over the foreground classes, in [0, 1].

      d[n, k] = (2 sum(p g) + eps) / (sum(p) + sum(g) + eps);  loss = 1 - mean of d, k = 1..K-1

  The smoothing stands outside the factor 2, so d never exceeds 1: a class neither present nor
  predicted scores 1, a class absent but predicted scores nearly 0.
  """
  overlap, mass = _dice_sums(logits, labels)
  score = (2 * overlap + SMOOTHING) / (mass + SMOOTHING)
  return 1 - jnp.mean(score[:, 1:])


def reference_dice(logits: Array, labels: Array) -> Array:
  """Computes the Dice loss of the released Attention U-Net code (Oktay et al. 2018), in (-1, 1).

      d[n, k] = 2 (sum(p g) + 0.01) / (sum(p) + sum(g) + 0.01);  loss = 1 - mean of d, k = 0..K-1

  The mean includes the background. The smoothing stands inside the factor 2: a class neither
  present nor predicted scores 2, so the loss may be negative.
  """
  overlap, mass = _dice_sums(logits, labels)
  return 1 - jnp.mean(2 * (overlap + RELEASED_SMOOTHING) / (mass + RELEASED_SMOOTHING))


def squared_dice(logits: Array, labels: Array) -> Array:
  """Computes V-Net's Dice loss (Milletari et al. 2016, section 3), in [0, 1].

      d[n, k] = (2 sum(p g) + eps) / (sum(p^2) + sum(g^2) + eps);  loss = 1 - mean, k = 1..K-1

  The paper has no eps. It avoids 0/0 for a class that is neither present nor predicted.
  """
  p, g = softmax_and_one_hot(logits, labels)
  # g stands for g^2: its values are 0 and 1.
  overlap, mass = jnp.sum(p * g, VOXELS), jnp.sum(p**2 + g, VOXELS)
  return 1 - jnp.mean(((2 * overlap + SMOOTHING) / (mass + SMOOTHING))[:, 1:])


def dice_hinge(logits: Array, labels: Array) -> Array:
  """Adds penalties on classes that are almost lost to Dice, as Dense V-Net (Gibson et al. 2018).

      d[n, k] = 2 sum(p g) / (sum(p^2) + sum(g) + eps),   k = 0..K-1
      loss = mean over n, k of 1 - d + 10 (10 min(d, 0.1) - 1)^2 + 10 (100 min(d, 0.01) - 1)^2

  As in the released code: 21, the maximum, where every d is 0, and 1 - mean of d once every d is
  0.1 or more. A class that is absent from a sample scores 0 there, which has no gradient.
  """
  p, g = softmax_and_one_hot(logits, labels)
  d = 2 * jnp.sum(p * g, VOXELS) / (jnp.sum(p**2 + g, VOXELS) + SMOOTHING)
  # min(d, least) is constant above `least`: a penalty vanishes there, with its gradient.
  hinges = [10 * (jnp.minimum(d, least) / least - 1) ** 2 for least in (0.1, 0.01)]
  return jnp.mean(1 - d + sum(hinges))


def generalised_dice(logits: Array, labels: Array) -> Array:
  """Computes the generalised Dice loss (Sudre et al. 2017, arXiv:1707.03237), in [0, 1].

      loss = 1 - mean over n of 2 sum_k w[k] sum(p g) / sum_k w[k] (sum(p) + sum(g))
      w[k] = 1 / sum(g)^2

  The background is included. A class that is absent from a sample has the largest weight of those
  present. The loss is 1 where nothing is labelled.
  """
  p, g = softmax_and_one_hot(logits, labels)
  volume = jnp.sum(g, VOXELS)
  weight = jnp.where(volume > 0, 1 / jnp.maximum(volume, 1) ** 2, 0)
  # An infinite weight for an absent class would leave only its false positives in the sums.
  weight = jnp.where(volume > 0, weight, jnp.max(weight, axis=-1, keepdims=True))
  overlap = jnp.sum(weight * jnp.sum(p * g, VOXELS), axis=-1)
  mass = jnp.sum(weight * jnp.sum(p + g, VOXELS), axis=-1)
  return 1 - jnp.mean(2 * overlap / jnp.maximum(mass, jnp.finfo(mass.dtype).tiny))


def tversky_loss(logits: Array, labels: Array, *, alpha: float = 0.3, beta: float = 0.7) -> Array:
  """Computes the Tversky loss (Salehi et al. 2017, arXiv:1706.05721), in [0, 1].

      T[n, k] = (sum(p g) + eps) / (sum(p g) + alpha sum(p (1 - g)) + beta sum((1 - p) g) + eps)
      loss = 1 - mean of T, k = 1..K-1

  At alpha = beta = 1/2 it is a soft Dice; a larger beta favours recall.

  Options:
    alpha: weight of false positives.
    beta: weight of false negatives.
  """
  p, g = softmax_and_one_hot(logits, labels)
  overlap = jnp.sum(p * g, VOXELS)
  false = jnp.sum(alpha * p * (1 - g) + beta * (1 - p) * g, VOXELS)
  return 1 - jnp.mean(((overlap + SMOOTHING) / (overlap + false + SMOOTHING))[:, 1:])


def _dice_sums(logits: Array, labels: Array) -> tuple[Array, Array]:
  """Returns sum(p g), and sum(p) + sum(g), per sample and class [N, K].

  Of soft labels sum(min(p, g)), which is the same for g of 0 and 1. A product would be largest at
  p = 1 wherever g is above a half; this is largest at p = g (Wang et al. 2023, arXiv:2303.16296).
  """
  p, g = softmax_and_one_hot(logits, labels)
  overlap = jnp.minimum(p, g) if are_soft(labels) else p * g
  return jnp.sum(overlap, VOXELS), jnp.sum(p + g, VOXELS)
