"""Random changes of an image's intensities."""

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.augment.options import Augmentation, Range


def change_intensity(key: Array, image: Array, augmentation: Augmentation) -> Array:
  """Changes the intensities of an image by a factor and a shift, and adds noise.

      a * image + b + s * n

  a, b and s are drawn once per image, n is standard normal per voxel. With `noise_probability`
  below 1 some images get no noise.

  Args:
    key: random key, split in four for a, b, s and n.
    image: [X, Y, Z], normalised.
    augmentation: the ranges; a part at its neutral value costs nothing.

  Returns:
    [X, Y, Z].
  """
  scale_key, shift_key, sd_key, noise_key = jax.random.split(key, 4)
  # The ranges are static: a neutral part is left out of the compiled program.
  if augmentation.intensity_scale != (1.0, 1.0):
    image = image * _draw_uniform(scale_key, augmentation.intensity_scale)
  if augmentation.intensity_shift != (0.0, 0.0):
    image = image + _draw_uniform(shift_key, augmentation.intensity_shift)
  if augmentation.noise_sd != (0.0, 0.0):
    noise = jax.random.normal(noise_key, image.shape, image.dtype)
    sd = _draw_uniform(sd_key, augmentation.noise_sd)
    if augmentation.noise_probability < 1:
      # A key of its own: runs in which every image gets noise keep their draws.
      applies = jax.random.bernoulli(jax.random.fold_in(sd_key, 1), augmentation.noise_probability)
      sd = jnp.where(applies, sd, 0)
    image = image + sd * noise
  return image


def _draw_uniform(key: Array, bounds: Range) -> Array:
  """Draws a scalar, uniform between the bounds."""
  return jax.random.uniform(key, minval=bounds[0], maxval=bounds[1])
