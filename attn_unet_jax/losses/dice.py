"""Losses of overlap: Dice in its published forms, and Tversky."""

import jax.numpy as jnp
from jax import Array

from attn_unet_jax.losses.operands import VOXELS, labelled

SMOOTHING = 1e-5
REFERENCE_SMOOTHING = 0.01


def soft_dice(logits: Array, labels: Array) -> Array:
  """Soft Dice loss over the foreground classes.

      d[n, k] = (2 sum(p g) + eps) / (sum(p) + sum(g) + eps);  loss = 1 - mean of d, k = 1..K-1

  Sums run over the voxels of one sample, p is the softmax, g the one-hot label, eps = 1e-5. The
  smoothing stands outside the factor 2, so d never exceeds 1: a class neither present nor
  predicted scores 1, a class absent but predicted scores nearly 0.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].

  Returns:
    scalar in [0, 1].

  Raises:
    ValueError: the shapes do not fit, or K < 2.
  """
  overlap, mass = _dice_sums(logits, labels)
  score = (2 * overlap + SMOOTHING) / (mass + SMOOTHING)
  return 1 - jnp.mean(score[:, 1:])


def reference_dice(logits: Array, labels: Array) -> Array:
  """Dice loss of the released Attention U-Net code (Oktay et al. 2018), its smoothing included.

      d[n, k] = 2 (sum(p g) + 0.01) / (sum(p) + sum(g) + 0.01);  loss = 1 - mean of d, k = 0..K-1

  The mean includes the background. The smoothing stands inside the factor 2: a class neither
  present nor predicted scores 2, so the loss may be negative.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].

  Returns:
    scalar in (-1, 1).

  Raises:
    ValueError: the shapes do not fit, or K < 2.
  """
  overlap, mass = _dice_sums(logits, labels)
  return 1 - jnp.mean(2 * (overlap + REFERENCE_SMOOTHING) / (mass + REFERENCE_SMOOTHING))


def squared_dice(logits: Array, labels: Array) -> Array:
  """V-Net's Dice loss (Milletari et al. 2016, section 3), over the foreground classes.

      d[n, k] = (2 sum(p g) + eps) / (sum(p^2) + sum(g^2) + eps);  loss = 1 - mean, k = 1..K-1

  The paper has no eps (1e-5); it keeps a class that is neither present nor predicted from 0/0.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].

  Returns:
    scalar in [0, 1].

  Raises:
    ValueError: the shapes do not fit, or K < 2.
  """
  p, g = labelled(logits, labels)
  overlap, mass = jnp.sum(p * g, VOXELS), jnp.sum(p**2 + g, VOXELS)
  return 1 - jnp.mean(((2 * overlap + SMOOTHING) / (mass + SMOOTHING))[:, 1:])


def dice_hinge(logits: Array, labels: Array) -> Array:
  """Dice with penalties on classes that are all but lost, of Dense V-Net (Gibson et al. 2018).

      d[n, k] = 2 sum(p g) / (sum(p^2) + sum(g) + eps),   k = 0..K-1
      loss = mean over n, k of 1 - d + 10 (10 min(d, 0.1) - 1)^2 + 10 (100 min(d, 0.01) - 1)^2

  As in the released code: 21 where every d is 0, and 1 - mean of d once every d is 0.1. A class
  that a sample does not have scores 0 there, which has no gradient.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].

  Returns:
    scalar in [0, 21].

  Raises:
    ValueError: the shapes do not fit, or K < 2.
  """
  p, g = labelled(logits, labels)
  d = 2 * jnp.sum(p * g, VOXELS) / (jnp.sum(p**2 + g, VOXELS) + SMOOTHING)
  hinges = [10 * (jnp.minimum(d, least) / least - 1) ** 2 for least in (0.1, 0.01)]
  return jnp.mean(1 - d + sum(hinges))


def generalised_dice(logits: Array, labels: Array) -> Array:
  """Generalised Dice loss (Sudre et al. 2017, arXiv:1707.03237), background included.

      loss = 1 - mean over n of 2 sum_k w[k] sum(p g) / sum_k w[k] (sum(p) + sum(g))
      w[k] = 1 / sum(g)^2

  A class absent from a sample has the largest weight of those present, not an infinite one: else
  nothing but its false positives would count.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].

  Returns:
    scalar in [0, 1]; 1 where nothing is labelled.

  Raises:
    ValueError: the shapes do not fit, or K < 2.
  """
  p, g = labelled(logits, labels)
  volume = jnp.sum(g, VOXELS)
  weight = jnp.where(volume > 0, 1 / jnp.maximum(volume, 1) ** 2, 0)
  weight = jnp.where(volume > 0, weight, jnp.max(weight, axis=-1, keepdims=True))
  overlap = jnp.sum(weight * jnp.sum(p * g, VOXELS), axis=-1)
  mass = jnp.sum(weight * jnp.sum(p + g, VOXELS), axis=-1)
  return 1 - jnp.mean(2 * overlap / jnp.maximum(mass, jnp.finfo(mass.dtype).tiny))


def tversky(logits: Array, labels: Array, *, alpha: float = 0.3, beta: float = 0.7) -> Array:
  """Tversky loss (Salehi et al. 2017, arXiv:1706.05721), over the foreground classes.

      T[n, k] = (sum(p g) + eps) / (sum(p g) + alpha sum(p (1 - g)) + beta sum((1 - p) g) + eps)
      loss = 1 - mean of T, k = 1..K-1

  At alpha = beta = 1/2 it is the soft Dice; a larger beta asks for recall.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].
    alpha: weight of false positives.
    beta: weight of false negatives.

  Returns:
    scalar in [0, 1].

  Raises:
    ValueError: the shapes do not fit, or K < 2.
  """
  p, g = labelled(logits, labels)
  overlap = jnp.sum(p * g, VOXELS)
  false = jnp.sum(alpha * p * (1 - g) + beta * (1 - p) * g, VOXELS)
  return 1 - jnp.mean(((overlap + SMOOTHING) / (overlap + false + SMOOTHING))[:, 1:])


def _dice_sums(logits: Array, labels: Array) -> tuple[Array, Array]:
  """Per sample and class [N, K]: sum(p g), and sum(p) + sum(g)."""
  p, g = labelled(logits, labels)
  return jnp.sum(p * g, VOXELS), jnp.sum(p + g, VOXELS)
