"""One augmented patch out of a block."""

from math import ceil

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.augment.affine import reach, spatial_matrix
from attn_unet_jax.augment.deformation import displacement, largest_displacement
from attn_unet_jax.augment.intensity import intensity
from attn_unet_jax.augment.options import Augmentation
from attn_unet_jax.augment.registry import load_augmentation
from attn_unet_jax.augment.warp import flip, mirrored_axes, warp

Shape = tuple[int, int, int]

_FIRST_EXTRA = (
  1000  # number of the first further augmentation's key, beside those of the built-in parts
)


def source_shape(patch: Shape, augmentation: Augmentation) -> Shape:
  """Shape of the block to cut around a patch so that every sample lies inside it.

  Args:
    patch: [X, Y, Z] in voxels.
    augmentation: the ranges.

  Returns:
    patch + 2 * margin, the patch in the middle; the patch itself where nothing reaches out of it.
  """
  moved = (largest_displacement(sd) if augmentation.deforms else 0 for sd in augmentation.deform_sd)
  furthest = [r + m for r, m in zip(reach(patch, augmentation), moved, strict=True)]
  # 1e-3: float32 rounding of the coordinates must not cost a voxel where the reach is integral.
  margins = [max(0, ceil(r - (n - 1) / 2 - 1e-3)) for r, n in zip(furthest, patch, strict=True)]
  x, y, z = (n + 2 * margin for n, margin in zip(patch, margins, strict=True))
  return x, y, z


def augment(
  key: Array, image: Array, label: Array, patch: Shape, augmentation: Augmentation
) -> tuple[Array, Array]:
  """Draws one augmented patch from the middle of a block; `jax.vmap` gives a batch.

  Args:
    key: random key; the result depends on it alone.
    image: float32 block [SX, SY, SZ] of shape `source_shape(patch, augmentation)`, normalised.
    label: integers [SX, SY, SZ].
    patch: [X, Y, Z], static.
    augmentation: the ranges, static.

  Returns:
    image float32 [X, Y, Z] and label [X, Y, Z] of the input's type.

  Raises:
    ValueError: a block of another shape.
  """
  needed = source_shape(patch, augmentation)
  if image.shape != needed or label.shape != needed:
    raise ValueError(f"image block {image.shape}, label block {label.shape}: expected {needed}")
  spatial_key, flip_key, intensity_key = jax.random.split(key, 3)
  mirrored = mirrored_axes(flip_key, augmentation)
  if augmentation.warps:
    matrix = spatial_matrix(spatial_key, patch, augmentation)
    # Mirroring the coordinates: `flip` of the result would make XLA gather up to eight times.
    matrix = matrix * jnp.append(jnp.where(mirrored, -1, 1), 1)
    moved = None
    if augmentation.deforms:
      moved = displacement(jax.random.fold_in(key, 3), patch, augmentation)
    image = warp(image, matrix, patch, displacement=moved)
    label = warp(label, matrix, patch, nearest=True, displacement=moved)
  else:
    image, label = flip(image, mirrored), flip(label, mirrored)
  image = intensity(intensity_key, image, augmentation)
  for index, name in enumerate(augmentation.extra):
    image = load_augmentation(name)(jax.random.fold_in(key, _FIRST_EXTRA + index), image)
  return image, label
