"""Dilated convolution by any convolution, on interleaved grids."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from attn_unet_jax.models.ops.single import dilate_single, single_dilation


def convolve_dilated(
  convolve: Callable[[jax.Array], jax.Array], x: jax.Array, rate: int
) -> jax.Array:
  """Applies `convolve`, zero-padded and of stride 1, as if its kernel were dilated by `rate`.

  Voxels whose distance is no multiple of the rate do not interact. So each of the rate^3
  interleaved grids is convolved as a sample of its own, which works for every form of convolution.

  Args:
    convolve: [N', X', Y', Z', C] to [N', X', Y', Z', D].
    x: [N, X, Y, Z, C].
    rate: at least 1.

  Returns:
    [N, X, Y, Z, D].
  """
  if rate == 1:
    return convolve(x)
  if single_dilation():
    with dilate_single(rate):
      return convolve(x)
  n, X, Y, Z, channels = x.shape
  # Zeros that fill the grid up to a multiple of the rate are those that the padding would add.
  x = jnp.pad(x, ((0, 0), *((0, -size % rate) for size in (X, Y, Z)), (0, 0)))
  grid = tuple(size // rate for size in x.shape[1:4])
  a, b, c = grid
  # A transpose each way instead of strided slices: one dense convolution serves all grids.
  apart = x.reshape(n, a, rate, b, rate, c, rate, channels).transpose(0, 2, 4, 6, 1, 3, 5, 7)
  y = convolve(apart.reshape(-1, *grid, channels))
  y = y.reshape(n, rate, rate, rate, *grid, -1).transpose(0, 4, 1, 5, 2, 6, 3, 7)
  return y.reshape(n, a * rate, b * rate, c * rate, -1)[:, :X, :Y, :Z]
