"""Smooth random fields: one unit of variance, a correlation length in millimetres."""

import numpy as np

from attn_unet_jax.volumes.bspline import cubic_bspline_weights


def smooth_noise(
  rng: np.random.Generator,
  shape: tuple[int, ...],
  spacing: tuple[float, ...],
  length: float,
) -> np.ndarray:
  """A random field made of cubic B-splines on a coarse grid of random knots.

  Args:
    rng: where the knots come from.
    shape: voxels of the field, [X, Y, Z].
    spacing: millimetres between voxels, per axis.
    length: millimetres between knots, at least one voxel; the correlation length is about this.

  Returns:
    float32 [X, Y, Z] of mean 0 and expected variance 1.
  """
  bases = [_spline_basis(n, step, length) for n, step in zip(shape, spacing, strict=True)]
  field = rng.standard_normal([basis.shape[1] for basis in bases]).astype(np.float32)
  for basis in bases:
    # Contracting the first axis and appending the result last brings every axis round in turn.
    field = np.tensordot(field, basis, axes=([0], [1]))
  return field


def _spline_basis(count: int, step: float, length: float) -> np.ndarray:
  """Cubic B-spline weights [voxels, knots], scaled to keep the variance of white knots."""
  place = np.arange(count) * min(step / length, 1.0)
  knots = np.arange(-1, int(place[-1]) + 3)
  weights = cubic_bspline_weights(place, knots)
  return (weights / np.sqrt((weights**2).sum(1).mean())).astype(np.float32)
