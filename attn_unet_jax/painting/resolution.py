"""The resolution of a scan as operators along the axes: blur, and slices of some thickness.

An operator is a matrix [N, N] over the voxels of an axis, whose rows sum to 1. A Gaussian of any
width and slices of any thickness are then one small product per axis, and one program serves all.
"""

from math import ceil

import jax
import jax.numpy as jnp
from jax import Array

_LEAST_SD = 0.05  # voxels; a Gaussian of this width is the identity in float32
# A voxel holds the mean over its extent: as much blur as a Gaussian of this sd, in voxels.
VOXEL_SD = 12**-0.5


def gaussian_operator(size: int, sd: Array | float) -> Array:
  """Returns the blur by a Gaussian, [N, N]; beyond the ends it takes what lies inside.

  Args:
    size: N.
    sd: voxels.
  """
  distance = jnp.arange(size)[:, None] - jnp.arange(size)[None]
  weights = jnp.exp(-0.5 * (distance / jnp.maximum(sd, _LEAST_SD)) ** 2)
  return weights / weights.sum(1, keepdims=True)


def slice_operator(size: int, thickness: Array, phase: Array, least: float) -> Array:
  """Returns the passage through slices and back onto the voxels by linear interpolation, [N, N].

  Slices lie as far apart as they are thick, and hold the mean over their thickness.

  Args:
    size: N.
    thickness: voxels, at least `least`.
    phase: where the first slice lies, as a fraction of the thickness.
    least: the smallest thickness that may come, static: it decides how many slices there may be.
  """
  places = jnp.arange(size)
  # From more than one slice before the first voxel to more than one behind the last.
  middles = (jnp.arange(ceil(size / least) + 4) - 2 + phase) * thickness
  # A slice beyond the patch holds the voxels at the end.
  inside = jnp.clip(middles, 0, size - 1)[:, None]
  low = jnp.maximum(inside - thickness / 2, places - 0.5)
  high = jnp.minimum(inside + thickness / 2, places + 0.5)
  shares = jnp.maximum(high - low, 0)
  # Every slice lies on some voxel, so that no sum is 0.
  held = shares / shares.sum(1, keepdims=True)
  taken = jnp.maximum(1 - jnp.abs(places[:, None] - middles[None]) / thickness, 0)
  return multiply_operators(taken, held)


def multiply_operators(last: Array, first: Array) -> Array:
  """Returns the operator that applies `first`, then `last`."""
  return jnp.dot(last, first, precision=jax.lax.Precision.HIGHEST)


def remaining_sd(operator: Array) -> Array:
  """Returns the sd that an operator leaves of white noise of sd 1, as a mean over the voxels."""
  return jnp.sqrt(jnp.mean(jnp.sum(operator**2, axis=1)))
