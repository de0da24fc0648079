"""Losses of single voxels: cross-entropies, plain, weighted and focal.

For arguments, result and errors of every loss see `attn_unet_jax.losses`.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.losses.operands import are_soft, average_over_labelled, check_logits, is_class


def binary_cross_entropy(logits: Array, labels: Array) -> Array:
  """Computes the cross-entropy of foreground against background.

      -log(q) where label > 0, -log(1 - q) elsewhere;  q = 1 - softmax(logits)[0]

  Mean over samples and labelled voxels, >= 0. For K = 2 it equals `cross_entropy`. Of a share s it
  is -s log(q) - (1 - s) log(1 - q).
  """
  logits = check_logits(logits, labels)
  # q = sigmoid(z), so both logarithms are softplus(-+z), which neither overflows nor loses small
  # probabilities.
  z = jax.nn.logsumexp(logits[..., 1:], axis=-1) - logits[..., 0]
  if are_soft(labels):
    # softplus(z) = softplus(-z) + z
    return average_over_labelled(jax.nn.softplus(z) - labels * z, labels)
  return average_over_labelled(jax.nn.softplus(jnp.where(labels > 0, -z, z)), labels)


def balanced_bce(logits: Array, labels: Array, *, foreground: float = 0.0) -> Array:
  """Balances the binary cross-entropy by the sizes of foreground and background (Xie and Tu 2015).

      loss = mean_v of -(1 - f) log q where label > 0, -f log(1 - q) elsewhere

  q is as in `binary_cross_entropy`. f is the fraction of foreground: of each sample's labelled
  voxels (arXiv:1504.06375), or one for all samples, from the training set (Roth et al. 2018). Mean
  over samples and labelled voxels, >= 0; the published losses are sums over voxels.

  Options:
    foreground: fraction of foreground voxels in the training set; 0: each sample's own.
  """
  logits = check_logits(logits, labels)
  z = jax.nn.logsumexp(logits[..., 1:], axis=-1) - logits[..., 0]
  # UNLABELLED is a large number, not a negative one, so `labels > 0` alone would count it.
  positive = (labels > 0) & (labels != UNLABELLED)
  known = jnp.sum(labels != UNLABELLED, (1, 2, 3), keepdims=True)
  own = jnp.sum(positive, (1, 2, 3), keepdims=True) / jnp.maximum(known, 1)
  f = (jnp.full_like(own, foreground) if foreground else own).astype(z.dtype)
  cost = jnp.where(positive, (1 - f) * jax.nn.softplus(-z), f * jax.nn.softplus(z))
  return average_over_labelled(cost, labels)


def cross_entropy(logits: Array, labels: Array) -> Array:
  """Computes the cross-entropy over all classes.

      loss = mean_v -log softmax(logits)_v[label_v]

  Mean over samples and labelled voxels, >= 0.
  """
  logits = check_logits(logits, labels)
  # A mask, not a product with the one-hot label: 0 * -inf would be NaN.
  of_label = jnp.where(is_class(logits, labels), jax.nn.log_softmax(logits), 0)
  return average_over_labelled(-jnp.sum(of_label, axis=-1), labels)


def weighted_ce(logits: Array, labels: Array, *, class_weights: Sequence[float] = ()) -> Array:
  """Weights the cross-entropy by class, over labelled voxels (as in Cicek et al. 2016).

      loss = sum_v w[label_v] (-log softmax(logits)_v[label_v]) / sum_v w[label_v]

  The sums run over the whole batch. The loss is >= 0, and 0 where nothing is labelled.

  Options:
    class_weights: K weights, background first; empty: all 1.

  Raises:
    ValueError: there are not K weights.
  """
  log_p = jax.nn.log_softmax(check_logits(logits, labels))
  classes = logits.shape[-1]
  if len(class_weights) not in (0, classes):
    raise ValueError(f"{len(class_weights)} class weights for {classes} classes")
  weights = jnp.asarray(class_weights or (1.0,) * classes, log_p.dtype)
  weight = jnp.where(is_class(logits, labels), weights, 0)
  # A mask here too: where a class has weight 0 its log-probability may be -inf.
  cost = -jnp.sum(weight * jnp.where(weight > 0, log_p, 0))
  return cost / jnp.maximum(jnp.sum(weight), jnp.finfo(log_p.dtype).tiny)


def focal_loss(logits: Array, labels: Array, *, gamma: float = 2.0) -> Array:
  """Computes the focal loss (Lin et al. 2017, arXiv:1708.02002).

      loss = mean_v -(1 - q_v)^gamma log q_v,   q = softmax(logits)[label]

  At gamma = 0 it is the cross-entropy; a larger gamma plays down voxels that are right already.
  Mean over the labelled voxels of the batch, >= 0; 0 where nothing is labelled.

  Options:
    gamma: exponent, at least 0.
  """
  log_p = jax.nn.log_softmax(check_logits(logits, labels))
  of_label = is_class(logits, labels)
  log_q = jnp.sum(jnp.where(of_label, log_p, 0), axis=-1)
  # Held above 0, where the slope of a root (gamma < 1) is infinite.
  # expm1, because 1 - exp(log_q) rounds to 0 for voxels that are nearly certain.
  doubt = jnp.maximum(-jnp.expm1(log_q), jnp.finfo(log_q.dtype).eps)
  cost = jnp.sum(jnp.where(labels != UNLABELLED, -(doubt**gamma) * log_q, 0))
  return cost / jnp.maximum(jnp.sum(of_label), 1)
