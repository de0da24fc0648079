"""Smooth random fields of variance 1, with a correlation length in millimetres."""

import numpy as np

from attn_unet_jax.volumes.bspline import cubic_bspline_weights


def draw_smooth_noise(
  rng: np.random.Generator,
  shape: tuple[int, ...],
  spacing: tuple[float, ...],
  length: float,
) -> np.ndarray:
  """Draws a random field: cubic B-splines over a coarse grid of normally distributed knots.

  Args:
    rng: draws the knots.
    shape: voxels of the field, [X, Y, Z].
    spacing: millimetres between voxels, per axis.
    length: millimetres between knots, at least one voxel; the correlation length is about this.

  Returns:
    float32 [X, Y, Z] of mean 0 and expected variance 1.
  """
  bases = [_knot_weights(n, step, length) for n, step in zip(shape, spacing, strict=True)]
  field: np.ndarray = rng.standard_normal([basis.shape[1] for basis in bases]).astype(np.float32)
  for basis in bases:
    # Each product contracts the first axis and appends its result as the last one, so after three
    # of them the axes are X, Y, Z again.
    field = np.tensordot(field, basis, axes=([0], [1]))
  return field


def _knot_weights(count: int, step: float, length: float) -> np.ndarray:
  """Returns B-spline weights [voxels, knots], scaled so that white knots keep their variance."""
  # Knots closer than the voxels would only be more white noise, at a higher price.
  places = np.arange(count) * min(step / length, 1.0)
  knots = np.arange(-1, int(places[-1]) + 3)
  weights = cubic_bspline_weights(places, knots)
  scale = np.sqrt((weights**2).sum(1).mean())
  scaled: np.ndarray = (weights / scale).astype(np.float32)
  return scaled
