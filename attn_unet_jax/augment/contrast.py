"""A random contrast of an image."""

import jax.numpy as jnp
from jax import Array

from attn_unet_jax.augment.factors import draw_factor
from attn_unet_jax.augment.options import ContrastOptions


def change_contrast(key: Array, image: Array, options: ContrastOptions) -> Array:
  """Moves intensities away from their mean or towards it, within the image's own extremes.

      clip(mean + f (image - mean), min, max),  f from `draw_factor`

  Args:
    key: random key; the result depends on it alone.
    image: [X, Y, Z], normalised.
    options: the range of the factor, static.

  Returns:
    [X, Y, Z].
  """
  mean = image.mean()
  changed = mean + draw_factor(key, options.contrast_factor) * (image - mean)
  return jnp.clip(changed, image.min(), image.max())
