"""One patch, painted on what its voxels consist of."""

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.painting.densities import Densities, draw_densities
from attn_unet_jax.painting.fat import share_of_fat
from attn_unet_jax.painting.look import ScanLook, draw_look
from attn_unet_jax.painting.options import Painting, Range
from attn_unet_jax.painting.resolution import (
  VOXEL_SD,
  gaussian_operator,
  multiply_operators,
  remaining_sd,
  slice_operator,
)
from attn_unet_jax.painting.texture import apply_along_axes, draw_fields
from attn_unet_jax.painting.tone import bend_tone
from attn_unet_jax.painting.wall import paint_wall
from tfds_pancreas.abdomen.organs import ALL_ORGANS

# Distance of the knots of textures; the finest one divides the pancreas into lobules too.
_TEXTURES_MM = (30.0, 11.0, 5.0)
_LOWEST_HU, _HIGHEST_HU = -1024.0, 3071.0  # 12 bits, as scanners have


def paint_patch(
  key: Array, materials: Array, painting: Painting, window_hu: Range, spacing_mm: float
) -> Array:
  """Paints a CT image on a patch of materials; `jax.vmap` gives a batch.

  Args:
    key: random key; with the materials it decides every bit of the result.
    materials: numbers of `materials`, integers [X, Y, Z] in their final pose.
    painting: the ranges of all draws, static.
    window_hu: the range of means that are drawn freely, static.
    spacing_mm: between the voxels, static.

  Returns:
    HU, float32 [X, Y, Z].
  """
  look_key, scan_key = jax.random.split(key)
  look = draw_look(look_key, painting)
  return paint_scan(scan_key, materials, look, painting, window_hu, spacing_mm)


def paint_scan(
  key: Array,
  materials: Array,
  look: ScanLook,
  painting: Painting,
  window_hu: Range,
  spacing_mm: float,
) -> Array:
  """Paints a CT image that has a given look; see `paint_patch`."""
  density_key, field_key = jax.random.split(key)
  densities = draw_densities(density_key, look, painting, window_hu)
  x, y, z = materials.shape
  lengths = [length / spacing_mm for length in _TEXTURES_MM]
  *fields, white = draw_fields(field_key, (x, y, z), lengths)
  # A key of its own: without it the other draws are the same.
  wall_key = jax.random.fold_in(key, 2)
  hu = _paint_tissues(wall_key, materials, densities, look, fields, painting)
  hu = _reconstruct(hu, white, look, spacing_mm, painting.slice_mm[0])
  return jnp.clip(bend_tone(hu, look.gamma, look.contrast), _LOWEST_HU, _HIGHEST_HU)


def _paint_tissues(
  key: Array,
  materials: Array,
  densities: Densities,
  look: ScanLook,
  fields: list[Array],
  painting: Painting,
) -> Array:
  """Paints means, textures, the fat of the pancreas, and what bones and muscles are made of."""
  slow, middle, fine = fields
  index = materials.astype(jnp.int32)
  # The sum of two fields of variance 1, of variance 1 again.
  varying = (middle + fine) * 0.5**0.5
  hu = densities.mean[index] + densities.slow[index] * slow + densities.fine[index] * varying
  share = jnp.where(index == ALL_ORGANS["pancreas"], share_of_fat(fine, look.fat), 0)
  mixed = hu + share * (densities.mean[ALL_ORGANS["fat"]] - hu)
  return paint_wall(key, mixed, index, densities, (varying, fine), painting)


def _reconstruct(
  hu: Array, white: Array, look: ScanLook, spacing_mm: float, thinnest_mm: float
) -> Array:
  """Blurs an image, cuts it into slices, and adds noise, as a scanner does."""
  x, y, z = hu.shape
  slices = slice_operator(z, look.slice_mm / spacing_mm, look.slice_phase, thinnest_mm / spacing_mm)
  # Partial volume: a voxel holds the mean over its extent, and the edges of a label map are sharp.
  sd = jnp.sqrt((look.blur_mm / spacing_mm) ** 2 + VOXEL_SD**2)
  along_z = multiply_operators(slices, gaussian_operator(z, VOXEL_SD))
  image = apply_along_axes([gaussian_operator(x, sd), gaussian_operator(y, sd), along_z], hu)
  # Noise comes after the blur, and is as coarse along Z as the slices are thick.
  grain = look.noise_grain_mm / spacing_mm
  grains = [gaussian_operator(x, grain), gaussian_operator(y, grain), slices]
  # The blur takes most of the noise away: what is left of it gets the sd that was drawn.
  left = remaining_sd(grains[0]) * remaining_sd(grains[1]) * remaining_sd(grains[2])
  return image + look.noise_hu / left * apply_along_axes(grains, white)
