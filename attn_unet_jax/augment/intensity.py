"""Random changes of an image's intensities."""

import jax
from jax import Array

from attn_unet_jax.augment.options import Augmentation, Range


def intensity(key: Array, image: Array, augmentation: Augmentation) -> Array:
  """`a * image + b + s * n`: a, b and s drawn once per image, n standard normal per voxel.

  Args:
    key: random key, split in four for a, b, s and n.
    image: [X, Y, Z], normalised.
    augmentation: the ranges; a part at its neutral value costs nothing.

  Returns:
    [X, Y, Z].
  """
  scale_key, shift_key, sd_key, noise_key = jax.random.split(key, 4)
  if augmentation.intensity_scale != (1.0, 1.0):
    image = image * _uniform(scale_key, augmentation.intensity_scale)
  if augmentation.intensity_shift != (0.0, 0.0):
    image = image + _uniform(shift_key, augmentation.intensity_shift)
  if augmentation.noise_sd != (0.0, 0.0):
    noise = jax.random.normal(noise_key, image.shape, image.dtype)
    image = image + _uniform(sd_key, augmentation.noise_sd) * noise
  return image


def _uniform(key: Array, bounds: Range) -> Array:
  return jax.random.uniform(key, minval=bounds[0], maxval=bounds[1])
