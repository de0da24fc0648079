"""Sampling a patch out of a block, and mirroring.

Interpolation is eight plain gathers: two 48^3 patches take about 4 ms on two CPU cores. Packing the
eight neighbours into one gathered row was ten times slower, and one gather of 2x2x2 windows was
slower too.
"""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.augment.options import Augmentation

Shape = tuple[int, int, int]


def warp_block(
  volume: Array,
  matrix: Array,
  patch: Shape,
  *,
  nearest: bool = False,
  displacement: Array | None = None,
) -> Array:
  """Samples a patch out of a block at affinely transformed, perhaps displaced, coordinates.

  Args:
    volume: block [SX, SY, SZ].
    matrix: [3, 4], patch to source coordinates, both counted from the grid's centre.
    patch: [X, Y, Z], static.
    nearest: takes the nearest voxel (labels) instead of trilinear interpolation (images).
    displacement: [3, X, Y, Z], added to the source coordinates, voxels.

  Returns:
    [X, Y, Z]; of the volume's type if `nearest`. Coordinates outside are clamped to the border.
  """
  coordinates = _source_coordinates(matrix, patch, volume.shape, displacement)
  if nearest:
    # Not `jnp.round`, which takes halves to even: neighbours would be taken twice, or never.
    return _take_voxels(volume, [jnp.floor(c + 0.5).astype(jnp.int32) for c in coordinates])
  # The lower corner stays one voxel inside, so that the upper one exists.
  lower = [
    jnp.clip(jnp.floor(c), 0, max(n - 2, 0)) for c, n in zip(coordinates, volume.shape, strict=True)
  ]
  fractions = [c - low for c, low in zip(coordinates, lower, strict=True)]
  return _interpolate_trilinear(volume, [low.astype(jnp.int32) for low in lower], fractions)


def draw_mirrored_axes(key: Array, augmentation: Augmentation) -> Array:
  """Draws for each of the axes X, Y, Z whether it is mirrored: booleans [3]."""
  return jax.random.uniform(key, (3,)) < jnp.array(augmentation.flip)


def mirror_volume(volume: Array, mirrored: Array) -> Array:
  """Mirrors a volume [X, Y, Z] along the axes for which `mirrored` [3] is true."""
  for axis in range(3):
    volume = jnp.where(mirrored[axis], jnp.flip(volume, axis), volume)
  return volume


def _source_coordinates(
  matrix: Array, patch: Shape, block: tuple[int, ...], displacement: Array | None
) -> list[Array]:
  """Computes the source coordinates in voxels, three arrays [X, Y, Z], clamped to the block."""
  x, y, z = jnp.meshgrid(*(jnp.arange(n) - (n - 1) / 2 for n in patch), indexing="ij", sparse=True)
  moved: Iterable[Any] = (0, 0, 0) if displacement is None else displacement
  return [
    jnp.clip(row[0] * x + row[1] * y + row[2] * z + row[3] + d + (n - 1) / 2, 0, n - 1)
    for row, d, n in zip(matrix, moved, block, strict=True)
  ]


def _take_voxels(volume: Array, index: list[Array]) -> Array:
  """Gathers the voxels at integer coordinates, three arrays of one shape."""
  _, sy, sz = volume.shape
  # By default `take` also checks every index, to return NaN for one outside. None is.
  return jnp.take(volume.reshape(-1), (index[0] * sy + index[1]) * sz + index[2], mode="clip")


def _interpolate_trilinear(volume: Array, lower: list[Array], fractions: list[Array]) -> Array:
  """Interpolates between the voxels at `lower` and those one further along each axis."""

  def along(axis: int, index: list[Array]) -> Array:
    """Interpolates along an axis and all later ones; three axes on, it takes the voxels."""
    if axis == 3:
      return _take_voxels(volume, index)
    # A block of one voxel along an axis has no upper corner, whose weight is 0 then.
    above = [i + 1 if a == axis else i for a, i in enumerate(index)]
    low, weight = along(axis + 1, index), fractions[axis]
    return low * (1 - weight) + along(axis + 1, above) * weight

  return along(0, lower)
