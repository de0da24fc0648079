"""A random factor on an image's intensities."""

from jax import Array

from attn_unet_jax.augment.factors import draw_factor
from attn_unet_jax.augment.options import BrightnessOptions


def change_brightness(key: Array, image: Array, options: BrightnessOptions) -> Array:
  """Multiplies an image by a factor that is drawn by `draw_factor`.

  Args:
    key: random key; the result depends on it alone.
    image: [X, Y, Z], normalised.
    options: the range of the factor, static.

  Returns:
    [X, Y, Z].
  """
  return image * draw_factor(key, options.brightness_factor)
