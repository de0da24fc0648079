"""Losses of single voxels: cross-entropies, plain, weighted and focal."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.losses.operands import checked, is_class, mean_of_labelled


def binary_cross_entropy(logits: Array, labels: Array) -> Array:
  """Cross-entropy of foreground against background, mean over samples and labelled voxels.

      -log(q) where label > 0, -log(1 - q) elsewhere;  q = 1 - softmax(logits)[0]

  With z = logsumexp(logits[1:]) - logits[0], q = sigmoid(z) and both logarithms are softplus(-+z),
  which neither overflows nor loses small probabilities. For K = 2 it equals `cross_entropy`.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].

  Returns:
    scalar >= 0, in nats.

  Raises:
    ValueError: the shapes do not fit, or K < 2.
  """
  logits = checked(logits, labels)
  z = jax.nn.logsumexp(logits[..., 1:], axis=-1) - logits[..., 0]
  return mean_of_labelled(jax.nn.softplus(jnp.where(labels > 0, -z, z)), labels)


def balanced_bce(logits: Array, labels: Array, *, foreground: float = 0.0) -> Array:
  """Cross-entropy of foreground against background, balanced by their sizes (Xie and Tu 2015).

      loss = mean_v of -(1 - f) log q where label > 0, -f log(1 - q) elsewhere

  f is the fraction of foreground: of each sample's labelled voxels (arXiv:1504.06375), or one for
  all samples, from the training set (Roth et al. 2018). The published losses are sums over voxels.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].
    foreground: fraction of foreground voxels in the training set; 0: each sample's own.

  Returns:
    scalar >= 0, in nats; mean over samples and labelled voxels.

  Raises:
    ValueError: the shapes do not fit, or K < 2.
  """
  logits = checked(logits, labels)
  z = jax.nn.logsumexp(logits[..., 1:], axis=-1) - logits[..., 0]
  positive = (labels > 0) & (labels != UNLABELLED)
  known = jnp.sum(labels != UNLABELLED, (1, 2, 3), keepdims=True)
  own = jnp.sum(positive, (1, 2, 3), keepdims=True) / jnp.maximum(known, 1)
  f = (jnp.full_like(own, foreground) if foreground else own).astype(z.dtype)
  cost = jnp.where(positive, (1 - f) * jax.nn.softplus(-z), f * jax.nn.softplus(z))
  return mean_of_labelled(cost, labels)


def cross_entropy(logits: Array, labels: Array) -> Array:
  """Cross-entropy over all classes, -log softmax(logits)[label], mean over samples and voxels.

  Voxels are the labelled ones.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].

  Returns:
    scalar >= 0, in nats.

  Raises:
    ValueError: the shapes do not fit, or K < 2.
  """
  logits = checked(logits, labels)
  # A mask, not a product with the one-hot label: 0 * -inf would be NaN.
  of_label = jnp.where(is_class(logits, labels), jax.nn.log_softmax(logits), 0)
  return mean_of_labelled(-jnp.sum(of_label, axis=-1), labels)


def weighted_ce(logits: Array, labels: Array, *, class_weights: Sequence[float] = ()) -> Array:
  """Cross-entropy with a weight per class, over labelled voxels (as in Cicek et al. 2016).

      loss = sum_v w[label_v] (-log softmax(logits)_v[label_v]) / sum_v w[label_v]

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z]; `UNLABELLED` voxels have weight 0.
    class_weights: K weights, background first; empty: all 1.

  Returns:
    scalar >= 0, in nats; 0 where nothing is labelled.

  Raises:
    ValueError: the shapes do not fit, K < 2, or there are not K weights.
  """
  log_p = jax.nn.log_softmax(checked(logits, labels))
  classes = logits.shape[-1]
  if len(class_weights) not in (0, classes):
    raise ValueError(f"{len(class_weights)} class weights for {classes} classes")
  weights = jnp.asarray(class_weights or (1.0,) * classes, log_p.dtype)
  weight = jnp.where(is_class(logits, labels), weights, 0)
  cost = -jnp.sum(weight * jnp.where(weight > 0, log_p, 0))
  return cost / jnp.maximum(jnp.sum(weight), jnp.finfo(log_p.dtype).tiny)


def focal(logits: Array, labels: Array, *, gamma: float = 2.0) -> Array:
  """Focal loss (Lin et al. 2017, arXiv:1708.02002), mean over labelled voxels.

      loss = mean_v -(1 - q_v)^gamma log q_v,   q = softmax(logits)[label]

  At gamma = 0 it is the cross-entropy; a larger gamma plays down voxels that are right already.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].
    gamma: exponent, at least 0.

  Returns:
    scalar >= 0, in nats; 0 where nothing is labelled.

  Raises:
    ValueError: the shapes do not fit, or K < 2.
  """
  log_p = jax.nn.log_softmax(checked(logits, labels))
  of_label = is_class(logits, labels)
  log_q = jnp.sum(jnp.where(of_label, log_p, 0), axis=-1)
  # Held above 0, where the slope of a root (gamma < 1) is infinite.
  doubt = jnp.maximum(-jnp.expm1(log_q), jnp.finfo(log_q.dtype).eps)
  cost = jnp.sum(jnp.where(labels != UNLABELLED, -(doubt**gamma) * log_q, 0))
  return cost / jnp.maximum(jnp.sum(of_label), 1)
