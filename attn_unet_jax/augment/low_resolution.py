"""Simulated low resolution: an image on a coarser grid, brought back to its own."""

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.augment.options import LowResolutionOptions


def lower_resolution(key: Array, image: Array, options: LowResolutionOptions) -> Array:
  """Samples an image on a coarser grid by the nearest voxel, and back linearly.

  An axis of n voxels has round(z n) of them meanwhile, at least one, with z drawn once for all axes
  (nnU-Net's SimulateLowResolution).

  Args:
    key: random key; the result depends on it alone.
    image: [X, Y, Z].
    options: the range of z, static.

  Returns:
    [X, Y, Z].
  """
  low, high = options.low_resolution_zoom
  zoom = jax.random.uniform(key, minval=low, maxval=high)
  for axis in range(3):
    image = _coarsen_axis(image, axis, zoom)
  return image


def _coarsen_axis(image: Array, axis: int, zoom: Array) -> Array:
  """Brings one axis to the coarser grid and back; the axes are independent of each other."""
  n = image.shape[axis]
  count = jnp.maximum(jnp.round(n * zoom), 1)
  # Both grids cover the same field: voxel i of n has its centre at (i + 1/2) / n of it.
  place = jnp.clip((jnp.arange(n) + 0.5) * count / n - 0.5, 0, count - 1)
  lower = jnp.floor(place)
  weight = (place - lower).reshape([-1 if a == axis else 1 for a in range(3)])

  def take_nearest(coarse: Array) -> Array:
    """Returns the values of coarse voxels, by their places on the coarse grid."""
    # The voxel whose extent contains the centre of the coarse one.
    index = jnp.floor((coarse + 0.5) * n / count).astype(jnp.int32)
    return jnp.take(image, index, axis=axis, mode="clip")

  upper = jnp.minimum(lower + 1, count - 1)
  return take_nearest(lower) * (1 - weight) + take_nearest(upper) * weight
