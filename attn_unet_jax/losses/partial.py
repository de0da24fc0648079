"""Partial labels: a case whose data set names only some of the classes.

Such a case knows of a voxel that is none of these that it is background or one of the others. Its
loss is that of a network with fewer classes: the probabilities of the others are added to that of
the background, p'[0] = p[0] + sum of p[k] over the classes k that the data set does not name, and
neither is any of these a class of the sum or mean. It is the loss of the smaller network to
rounding, for the losses whose line in `options` says how they take partial labels.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.labels import rest_value
from attn_unet_jax.losses.operands import check_logits

# A probability of zero. Not minus infinity, whose difference from itself is no number.
_NEVER = -1e30


class PartialOperands(NamedTuple):
  """The operands of a loss on partial labels.

  Attributes:
    logits: [N, X, Y, Z, K], of which softmax gives p'.
    labels: integers [N, X, Y, Z]: classes and `UNLABELLED`.
    supervised: whether the sample's data set names a foreground class, booleans [N, K - 1].
  """

  logits: Array
  labels: Array
  supervised: Array


def merge_unsupervised(
  logits: Array, labels: Array, sets: Sequence[Sequence[bool]]
) -> PartialOperands:
  """Adds the probabilities of the classes that a sample's data set does not name to class 0.

  Args:
    logits: [N, X, Y, Z, K].
    labels: integers [N, X, Y, Z]; `rest_value(s)` where a voxel is none of the classes that data
      set s names. A sample without such a voxel is taken for one with labels of all classes.
    sets: for each data set, whether it names each foreground class.
  """
  logits = check_logits(logits, labels)
  supervised = jnp.ones((labels.shape[0], logits.shape[-1] - 1), bool)
  for place, named in enumerate(sets):
    is_rest = labels == rest_value(place)
    # No label says which set a sample is of: the value of its rest does.
    of_set = jnp.any(is_rest, (1, 2, 3))[:, None]
    supervised = jnp.where(of_set, jnp.array(named), supervised)
    labels = jnp.where(is_rest, 0, labels).astype(labels.dtype)
  own = supervised[:, None, None, None, :]
  others = jnp.where(own, _NEVER, logits[..., 1:])
  background = jax.nn.logsumexp(jnp.concatenate([logits[..., :1], others], -1), -1, keepdims=True)
  merged = jnp.concatenate([background, jnp.where(own, logits[..., 1:], _NEVER)], -1)
  return PartialOperands(merged, labels, supervised)


def average_over_supervised(loss: Callable[..., Array], operands: PartialOperands) -> Array:
  """Makes a mean over all foreground classes the mean over those that each sample's set names.

  Args:
    loss: a mean over samples and foreground classes, to which a class without probability and
      without voxels adds nothing.
    operands: see `merge_unsupervised`.
  """

  def loss_of_sample(logits: Array, labels: Array) -> Array:
    """Returns the loss of a batch of one."""
    return loss(logits[None], labels[None])

  values = jax.vmap(loss_of_sample)(operands.logits, operands.labels)
  classes = operands.supervised.shape[1]
  # Classes that are not named add 0 to the sum of a sample: only what it is divided by changes.
  return jnp.mean(values * classes / jnp.sum(operands.supervised, axis=1))
