"""The inputs of the losses, checked: logits in float32, probabilities and one-hot labels.

The contract of `logits` and `labels` is in the docstring of `attn_unet_jax.losses`. Every loss
calls one of the functions here first, which raise its ValueError.
"""

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.labels import UNLABELLED

VOXELS = (1, 2, 3)  # axes of [N, X, Y, Z, K]


def check_logits(logits: Array, labels: Array) -> Array:
  """Checks that the shapes fit. Returns the logits in float32 at least.

  Raises:
    ValueError: the shapes do not fit, or K < 2.
  """
  if logits.ndim != 5 or logits.shape[-1] < 2 or logits.shape[:-1] != labels.shape:
    raise ValueError(
      f"logits {logits.shape} and labels {labels.shape} do not fit: "
      "expected [N, X, Y, Z, K] with K >= 2, and [N, X, Y, Z]"
    )
  # A sum over the voxels of a patch in bfloat16 stops growing early.
  return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def is_class(logits: Array, labels: Array) -> Array:
  """Returns the one-hot labels as booleans [N, X, Y, Z, K]; all false where unlabelled."""
  return labels[..., None] == jnp.arange(logits.shape[-1])


def average_over_labelled(cost: Array, labels: Array) -> Array:
  """Averages a cost over the labelled voxels of each sample, then over the samples.

  A sample without labelled voxels counts as 0.

  Args:
    cost: [N, X, Y, Z].
    labels: integers [N, X, Y, Z].
  """
  known = labels != UNLABELLED
  count = jnp.maximum(jnp.sum(known, axis=(1, 2, 3)), 1)
  # Not one mean over all voxels: a batch may be split over devices or micro-batches, and its loss
  # must be the mean of the losses of its parts.
  return jnp.mean(jnp.sum(jnp.where(known, cost, 0), axis=(1, 2, 3)) / count)


def are_soft(labels: Array) -> bool:
  """Returns whether labels are shares of one class and not classes."""
  return bool(jnp.issubdtype(labels.dtype, jnp.floating))


def softmax_and_one_hot(logits: Array, labels: Array) -> tuple[Array, Array]:
  """Returns the softmax and the one-hot labels, [N, X, Y, Z, K], both zero where unlabelled.

  Of soft labels: the shares of background and class.

  Raises:
    ValueError: the shapes do not fit, K < 2, or K > 2 for soft labels.
  """
  logits = check_logits(logits, labels)
  if are_soft(labels):
    if logits.shape[-1] != 2:
      raise ValueError(f"soft labels are of one class, not of {logits.shape[-1] - 1}")
    known = (labels != UNLABELLED)[..., None]
    share = jnp.where(known, jnp.stack([1 - labels, labels], -1), 0)
    return jnp.where(known, jax.nn.softmax(logits), 0), share.astype(logits.dtype)
  # The labels are zero there already: no class equals UNLABELLED.
  known = (labels != UNLABELLED)[..., None]
  probability = jnp.where(known, jax.nn.softmax(logits), 0)
  return probability, is_class(logits, labels).astype(logits.dtype)
