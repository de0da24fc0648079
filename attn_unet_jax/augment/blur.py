"""A random Gaussian blur of an image."""

from math import ceil

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.augment.options import BlurOptions

_REACH = 4  # standard deviations of the widest kernel, as SciPy cuts it


def blur_image(key: Array, image: Array, options: BlurOptions) -> Array:
  """Blurs an image by a Gaussian whose sd in voxels is drawn, one for all axes.

  Args:
    key: random key; the result depends on it alone.
    image: [X, Y, Z], whose border is repeated beyond it.
    options: the range of the sd, static.

  Returns:
    [X, Y, Z].
  """
  low, high = options.blur_sd
  sd = jax.random.uniform(key, minval=low, maxval=high)
  # The widest kernel of all draws, since shapes are static.
  reach = max(1, ceil(_REACH * high))
  distance = jnp.arange(-reach, reach + 1)
  # A sd near 0 leaves the image as it is, and divides by nothing.
  weights = jnp.exp(-0.5 * (distance / jnp.maximum(sd, 1e-3)) ** 2)
  weights = weights / jnp.sum(weights)
  for axis in range(3):
    n = image.shape[axis]
    padded = jnp.pad(image, [(reach, reach) if a == axis else (0, 0) for a in range(3)], "edge")
    # Sums of shifted images: a convolution of one channel is many times as slow on a CPU.
    image = sum(
      (
        weights[i] * jax.lax.slice_in_dim(padded, i, i + n, axis=axis) for i in range(2 * reach + 1)
      ),
      start=jnp.zeros_like(image),
    )
  return image
