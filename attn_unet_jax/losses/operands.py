"""What losses are computed from: probabilities and one-hot labels, once their shapes fit."""

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.labels import UNLABELLED

VOXELS = (1, 2, 3)  # axes of [N, X, Y, Z, K]


def checked(logits: Array, labels: Array) -> Array:
  """Logits in at least float32, once the shapes are known to fit."""
  if logits.ndim != 5 or logits.shape[-1] < 2 or logits.shape[:-1] != labels.shape:
    raise ValueError(
      f"logits {logits.shape} and labels {labels.shape} do not fit: "
      "expected [N, X, Y, Z, K] with K >= 2, and [N, X, Y, Z]"
    )
  return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))


def is_class(logits: Array, labels: Array) -> Array:
  """One-hot labels as booleans, shape of the logits."""
  return labels[..., None] == jnp.arange(logits.shape[-1])


def mean_of_labelled(cost: Array, labels: Array) -> Array:
  """Mean over samples of each one's mean cost over its labelled voxels; 0 where it has none.

  Not one mean over all: so the loss of a batch is the mean of its parts' losses.

  Args:
    cost: [N, X, Y, Z].
    labels: integers [N, X, Y, Z].
  """
  known = labels != UNLABELLED
  count = jnp.maximum(jnp.sum(known, axis=(1, 2, 3)), 1)
  return jnp.mean(jnp.sum(jnp.where(known, cost, 0), axis=(1, 2, 3)) / count)


def labelled(logits: Array, labels: Array) -> tuple[Array, Array]:
  """Softmax and one-hot label, [N, X, Y, Z, K], both zero at `UNLABELLED` voxels."""
  logits = checked(logits, labels)
  known = (labels != UNLABELLED)[..., None]
  probability = jnp.where(known, jax.nn.softmax(logits), 0)
  return probability, is_class(logits, labels).astype(logits.dtype)
