"""One augmented patch out of a block."""

from math import ceil

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.augment.affine import draw_spatial_matrix, largest_reach
from attn_unet_jax.augment.deformation import draw_displacement, largest_displacement
from attn_unet_jax.augment.intensity import change_intensity
from attn_unet_jax.augment.occasional import apply_occasional
from attn_unet_jax.augment.options import Augmentation
from attn_unet_jax.augment.registry import load_augmentation
from attn_unet_jax.augment.warp import draw_mirrored_axes, mirror_volume, warp_block
from attn_unet_jax.labels import UNLABELLED

Shape = tuple[int, int, int]

# The key of a further augmentation is folded in with this number plus its index: far above the
# numbers of the built-in parts, so that more of these can be added.
_FIRST_EXTRA = 1000


def source_shape(patch: Shape, augmentation: Augmentation) -> Shape:
  """Computes the shape of the block that contains every voxel a patch may sample.

  Args:
    patch: [X, Y, Z] in voxels.
    augmentation: the ranges.

  Returns:
    patch + 2 * margin, with the patch in the middle; the margin is 0 if no draw leaves the patch.
  """
  moved = (largest_displacement(sd) if augmentation.deforms else 0 for sd in augmentation.deform_sd)
  furthest = [r + m for r, m in zip(largest_reach(patch, augmentation), moved, strict=True)]
  # 1e-3: float32 rounding of the coordinates must not cost a voxel where the reach is integral.
  margins = [max(0, ceil(r - (n - 1) / 2 - 1e-3)) for r, n in zip(furthest, patch, strict=True)]
  x, y, z = (n + 2 * margin for n, margin in zip(patch, margins, strict=True))
  return x, y, z


def augment_patch(
  key: Array, image: Array, label: Array, patch: Shape, augmentation: Augmentation
) -> tuple[Array, Array]:
  """Draws one augmented patch from the middle of a block; `jax.vmap` gives a batch.

  Args:
    key: random key; the result depends on it alone.
    image: float32 block [SX, SY, SZ] of shape `source_shape(patch, augmentation)`, normalised.
    label: integers [SX, SY, SZ], of which the nearest is taken; or float32 shares in [0, 1],
      `UNLABELLED` where unknown, which are interpolated.
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
  image, label = pose_patch(key, image, label, patch, augmentation)
  return change_appearance(key, image, augmentation), label


def pose_patch(
  key: Array, image: Array, label: Array, patch: Shape, augmentation: Augmentation
) -> tuple[Array, Array]:
  """Draws the pose of a patch: the part of `augment_patch` that moves voxels.

  Arguments and result are those of `augment_patch`; of an integer image, too, the nearest voxel is
  taken.
  """
  spatial_key, flip_key, _ = jax.random.split(key, 3)
  mirrored = draw_mirrored_axes(flip_key, augmentation)
  if not augmentation.warps:
    return mirror_volume(image, mirrored), mirror_volume(label, mirrored)
  matrix = draw_spatial_matrix(spatial_key, patch, augmentation)
  # The coordinates are mirrored, not the result: that would make XLA gather up to eight times.
  matrix = matrix * jnp.append(jnp.where(mirrored, -1, 1), 1)
  moved = None
  if augmentation.deforms:
    # A key of its own, not a fourth part: augmentations without deformation keep their draws.
    moved = draw_displacement(jax.random.fold_in(key, 3), patch, augmentation)
  nearest = jnp.issubdtype(image.dtype, jnp.integer)
  image = warp_block(image, matrix, patch, nearest=nearest, displacement=moved)
  return image, _warp_label(label, matrix, patch, moved)


def change_appearance(key: Array, image: Array, augmentation: Augmentation) -> Array:
  """Changes the intensities of a patch: the part of `augment_patch` that leaves voxels in place.

  Args:
    key: the key of the patch's augmentation, as for `pose_patch`.
    image: float32 [X, Y, Z], normalised.
    augmentation: the ranges, static.
  """
  _, _, intensity_key = jax.random.split(key, 3)
  image = change_intensity(intensity_key, image, augmentation)
  image = apply_occasional(key, image, augmentation)
  for index, name in enumerate(augmentation.extra):
    image = load_augmentation(name)(jax.random.fold_in(key, _FIRST_EXTRA + index), image)
  return image


def _warp_label(label: Array, matrix: Array, patch: Shape, moved: Array | None) -> Array:
  if not jnp.issubdtype(label.dtype, jnp.floating):
    return warp_block(label, matrix, patch, nearest=True, displacement=moved)
  known = label != UNLABELLED
  # The share of the known part; unknown where less than half of the neighbours is known.
  share, part = (
    warp_block(volume, matrix, patch, displacement=moved)
    for volume in (jnp.where(known, label, 0), known.astype(label.dtype))
  )
  return jnp.where(part >= 0.5, share / jnp.maximum(part, 0.5), UNLABELLED)
