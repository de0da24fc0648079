"""The loss of the holistically nested networks `hnn`, on all maps that they return."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.losses.operands import VOXELS, average_over_labelled


def side_bce(sides: Mapping[int, Array], labels: Array, *, foreground: float = 0.0) -> Array:
  """Sums the class-balanced cross-entropy over the maps of all views (Xie and Tu 2015, eq. 2-6).

      loss = sum_maps mean_v of -(1 - f) log q where label > 0, -f log(1 - q) elsewhere

  q = sigmoid(map). f is the fraction of foreground: of the labelled voxels of each slice, which is
  an image of the paper, or one for all slices, from the training set (Roth et al. 2018). With its
  own f a slice without foreground costs nothing. The published loss is the sum over an image's
  pixels.

  Args:
    sides: by axis of the slices (1, 2, 3), logits [N, X, Y, Z, M] of that view's maps.
    labels: integers [N, X, Y, Z].
    foreground: fraction of foreground voxels in the training set; 0: each slice's own.

  Returns:
    scalar >= 0, in nats; per map the mean over samples and labelled voxels.

  Raises:
    ValueError: there is no map, or the shapes do not fit.
  """
  if not sides:
    raise ValueError("no side outputs: only the network hnn gives such maps")
  return jnp.sum(
    jnp.stack([_view_loss(maps, labels, axis, foreground) for axis, maps in sides.items()])
  )


def _view_loss(maps: Array, labels: Array, axis: int, foreground: float) -> Array:
  """Returns the loss of one view, summed over its maps [N, X, Y, Z, M]."""
  if maps.ndim != 5 or maps.shape[:-1] != labels.shape:
    raise ValueError(f"maps {maps.shape} and labels {labels.shape} do not fit")
  maps = maps.astype(jnp.promote_types(maps.dtype, jnp.float32))
  # UNLABELLED is a large number, not a negative one, so `labels > 0` alone would count it.
  positive = (labels > 0) & (labels != UNLABELLED)
  # The fraction is that of a slice: all voxel axes but the one along which slices are stacked.
  within = tuple(a for a in VOXELS if a != axis)
  known = jnp.sum(labels != UNLABELLED, within, keepdims=True)
  own = jnp.sum(positive, within, keepdims=True) / jnp.maximum(known, 1)
  f = (jnp.full_like(own, foreground) if foreground else own).astype(maps.dtype)[..., None]
  softplus = jax.nn.softplus
  cost = jnp.where(positive[..., None], (1 - f) * softplus(-maps), f * softplus(maps))
  return average_over_labelled(jnp.sum(cost, -1), labels)
