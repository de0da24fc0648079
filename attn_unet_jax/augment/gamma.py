"""A random gamma curve on an image's intensities."""

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.augment.factors import draw_factor
from attn_unet_jax.augment.options import GammaOptions

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
  return _raise_to(image, jax.random.uniform(key, minval=_RANGE[0], maxval=_RANGE[1]))


def bend_by_gamma(key: Array, image: Array, options: GammaOptions) -> Array:
  """Raises the intensities to a power, and gives the image its mean and sd again.

  The power is drawn by `draw_factor`; the curve is that of `apply_gamma`.

  Args:
    key: random key; the result depends on it alone.
    image: [X, Y, Z], normalised.
    options: the range of the power, static.

  Returns:
    [X, Y, Z].
  """
  bent = _raise_to(image, draw_factor(key, options.gamma_range))
  # A constant image has no sd to divide by, and stays as it is.
  sd = jnp.maximum(bent.std(), _LEAST_EXTENT)
  return image.mean() + (bent - bent.mean()) * (image.std() / sd)


def bend_inverted_by_gamma(key: Array, image: Array, options: GammaOptions) -> Array:
  """Does what `bend_by_gamma` does to the image with bright and dark exchanged."""
  return -bend_by_gamma(key, -image, options)


def _raise_to(image: Array, power: Array) -> Array:
  """Raises intensities to a power, between the image's own extremes."""
  low, high = image.min(), image.max()
  extent = jnp.maximum(high - low, _LEAST_EXTENT)
  return low + extent * ((image - low) / extent) ** power
