"""Random factors about 1."""

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.augment.options import Range


def draw_factor(key: Array, bounds: Range) -> Array:
  """Draws a scalar, uniform below 1 or uniform above 1, each as often as the other.

  As in nnU-Net. Between bounds that both lie on one side of 1 it is uniform.

  Args:
    key: random key.
    bounds: the ends, static.
  """
  low, high = bounds
  if not low < 1 < high:
    return jax.random.uniform(key, minval=low, maxval=high)
  side = jax.random.uniform(key, minval=-1, maxval=1)
  return jnp.where(side < 0, 1 + side * (1 - low), 1 + side * (high - 1))
