"""Smooth random fields of variance 1, and white noise, inside the compiled step."""

from collections.abc import Sequence
from itertools import accumulate
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from attn_unet_jax.augment.deformation import spline_basis

Shape = tuple[int, int, int]


def draw_fields(key: Array, shape: Shape, lengths: Sequence[float]) -> list[Array]:
  """Draws random fields and, as the last one, white noise.

  A smooth field is a sum of cubic B-splines over a coarse grid of normally distributed knots.

  Args:
    key: random key.
    shape: [X, Y, Z], static.
    lengths: of each smooth field, the voxels between knots; the correlation length is about this.

  Returns:
    float32 [X, Y, Z] each, of mean 0 and expected variance 1.
  """
  # Knots closer than the voxels would only be more white noise, at a higher price.
  bases = [[_scale_basis(n, max(length, 1.0)) for n in shape] for length in lengths]
  shapes = [tuple(basis.shape[1] for basis in three) for three in bases] + [shape]
  # One draw for all: each draw of its own is a program of its own, and takes seconds to compile.
  ends = list(accumulate(map(prod, shapes)))
  drawn = jnp.split(jax.random.normal(key, (ends[-1],)), ends[:-1])
  *knots, white = (part.reshape(own) for part, own in zip(drawn, shapes, strict=True))
  return [*map(apply_along_axes, bases, knots), white]


def apply_along_axes(matrices: Sequence[Array | np.ndarray], volume: Array) -> Array:
  """Applies a matrix [new, old] along each axis of a volume [X, Y, Z]."""
  for matrix in matrices:
    # Each product contracts the first axis and appends its result as the last one, so that after
    # three of them the axes are X, Y, Z again. HIGHEST: accelerators round operands by default.
    volume = jnp.tensordot(volume, matrix, (0, 1), precision=jax.lax.Precision.HIGHEST)
  return volume


def _scale_basis(size: int, length: float) -> np.ndarray:
  """Returns B-spline weights [voxels, knots], scaled so that white knots keep their variance."""
  basis = spline_basis(size, length)
  scaled: np.ndarray = (basis / np.sqrt(np.mean(np.sum(basis**2, axis=1)))).astype(np.float32)
  return scaled
