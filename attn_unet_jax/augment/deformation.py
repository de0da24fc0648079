"""A smooth random displacement of every voxel: a cubic B-spline over a coarse grid of vectors.

`deform_sd` is the standard deviation of the displacement over all voxels. Papers give that of the
vectors of their grid, which is larger than that of the field. In Cicek et al. 2016 (4 voxels, 32
apart) the vectors are the displacements of the grid's points, and the factor is 0.817
(`experiments/unet3d.py`); in Milletari et al. 2016 they are coefficients of B-splines, and it is
0.332.
"""

from functools import lru_cache
from math import ceil

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from attn_unet_jax.augment.options import Augmentation
from attn_unet_jax.volumes.bspline import cubic_bspline_weights

Shape = tuple[int, int, int]

_LARGEST = 3.0  # standard deviations; larger displacements are clipped, so that blocks stay small


def draw_displacement(key: Array, patch: Shape, augmentation: Augmentation) -> Array:
  """Draws a smooth displacement field.

      d(x) = sum_ijk B_i(x) B_j(y) B_k(z) c_ijk,   c normal, B the uniform cubic B-splines

  The vectors c are scaled so that d has the standard deviation `deform_sd` over the patch. Without
  the scaling it would have about a third of that of c.

  Args:
    key: random key.
    patch: [X, Y, Z].
    augmentation: standard deviations, spacing of the control points, and how often it applies.

  Returns:
    [3, X, Y, Z] float32 in voxels, none above 3 standard deviations.
  """
  vector_key, applies_key = jax.random.split(key)
  bases = [spline_basis(n, augmentation.deform_spacing) for n in patch]
  field = jax.random.normal(vector_key, (3, *(basis.shape[1] for basis in bases)))
  for axis, basis in enumerate(bases, start=1):
    weights = jnp.asarray(basis / np.sqrt(np.mean(np.sum(basis**2, axis=1))), jnp.float32)
    # HIGHEST: accelerators round matmul operands by default.
    product = jnp.tensordot(weights, field, (1, axis), precision=jax.lax.Precision.HIGHEST)
    field = jnp.moveaxis(product, 0, axis)
  sd = jnp.asarray(augmentation.deform_sd).reshape(3, 1, 1, 1)
  applies = jax.random.uniform(applies_key) < augmentation.deform_probability
  return jnp.where(applies, sd * jnp.clip(field, -_LARGEST, _LARGEST), 0)


def largest_displacement(sd: float) -> float:
  """Returns the bound of `draw_displacement` for a standard deviation, both in voxels."""
  return _LARGEST * sd


@lru_cache
def spline_basis(size: int, spacing: float) -> np.ndarray:
  """Returns the weights [size, M] of M uniform cubic B-splines at the voxels of an axis.

  Rows sum to 1. The control points lie `spacing` voxels apart, symmetrically about the centre of
  the axis, and reach beyond its ends as far as a cubic needs.
  """
  intervals = max(1, ceil((size - 1) / spacing))
  places = (np.arange(size) - (size - 1) / 2) / spacing + intervals / 2
  return cubic_bspline_weights(places, np.arange(-1, intervals + 2))
