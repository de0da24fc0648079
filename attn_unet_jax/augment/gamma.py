"""A random gamma curve on an image's intensities."""

import jax
import jax.numpy as jnp
from jax import Array

_RANGE = (0.7, 1.5)  # nnU-Net's
_LEAST_EXTENT = 1e-7  # of a constant image, which stays as it is


def apply_gamma(key: Array, image: Array) -> Array:
  """Raises the intensities to a power, between the image's own extremes.

      low + (high - low) ((image - low) / (high - low))^g,  g uniform in [0.7, 1.5]

  Args:
    key: random key; the result depends on it alone.
    image: [X, Y, Z], normalised.

  Returns:
    [X, Y, Z], with the extremes of the input.
  """
  low, high = image.min(), image.max()
  extent = jnp.maximum(high - low, _LEAST_EXTENT)
  gamma = jax.random.uniform(key, minval=_RANGE[0], maxval=_RANGE[1])
  return low + extent * ((image - low) / extent) ** gamma
