"""The loss of deeply supervised networks of slices, on all the maps that they give out."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.losses.operands import VOXELS, mean_of_labelled


def side_bce(sides: Mapping[int, Array], labels: Array, *, foreground: float = 0.0) -> Array:
  """Class-balanced cross-entropy, summed over the maps of all views (Xie and Tu 2015, eq. 2-6).

      loss = sum_maps mean_v of -(1 - f) log q where label > 0, -f log(1 - q) elsewhere

  q = sigmoid(map). f is the fraction of foreground: of each slice's labelled voxels, which are the
  paper's images, so that a slice without foreground costs nothing; or one for all slices, from the
  training set (Roth et al. 2018). The published loss is the sum over an image's pixels.

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
    jnp.stack([_of_view(maps, labels, axis, foreground) for axis, maps in sides.items()])
  )


def _of_view(maps: Array, labels: Array, axis: int, foreground: float) -> Array:
  if maps.ndim != 5 or maps.shape[:-1] != labels.shape:
    raise ValueError(f"maps {maps.shape} and labels {labels.shape} do not fit")
  maps = maps.astype(jnp.promote_types(maps.dtype, jnp.float32))
  positive = (labels > 0) & (labels != UNLABELLED)
  within = tuple(a for a in VOXELS if a != axis)
  known = jnp.sum(labels != UNLABELLED, within, keepdims=True)
  own = jnp.sum(positive, within, keepdims=True) / jnp.maximum(known, 1)
  f = (jnp.full_like(own, foreground) if foreground else own).astype(maps.dtype)[..., None]
  softplus = jax.nn.softplus
  cost = jnp.where(positive[..., None], (1 - f) * softplus(-maps), f * softplus(maps))
  return mean_of_labelled(jnp.sum(cost, -1), labels)
