"""Draws into a patch what no label map names: bowel and vessels in the fat, and lesions."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import erfinv

from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.painting.materials import (
  DUCT,
  LESION,
  LOOP_CONTENT,
  LOOP_WALL,
  VESSEL,
  VISCERAL_FAT,
)
from attn_unet_jax.painting.options import Painting
from attn_unet_jax.painting.resolution import gaussian_operator
from attn_unet_jax.painting.texture import apply_along_axes, draw_fields
from tfds_pancreas.abdomen.organs import ALL_ORGANS

# Distance of the knots of loops of bowel, of vessels (two fields), and of a lesion's outline.
_LENGTHS_MM = (24.0, 13.0, 13.0)
_WALL = 0.35  # of the loops' field, from the fat to what a loop holds
_VESSELS = 0.3  # of the clutter, at most
_BESIDE_MM, _CROWDING = 8.0, 2.5  # how far loops crowd about the pancreas, and how much at most
_RADIUS_MM = (5.0, 28.0)  # of lesions: in 25 patients 6 to 32, on the median 11
_OUTLINE = 0.2  # sd of a lesion's outline, a fraction of its radius
_ELONGATION = 0.25  # sd of the logarithm of its axes
_WIDE_DUCTS, _DUCT_SHARE = 0.4, 0.08  # how many of the lesions widen the duct, to what share


class _Draws(NamedTuple):
  """Uniform numbers in [0, 1), scalars, each decides what it is called after."""

  clutter: Array
  loops: Array
  vessels: Array
  crowding: Array
  lesion: Array
  radius: Array
  wide_duct: Array
  duct: Array


def vary_anatomy(
  key: Array, materials: Array, label: Array, painting: Painting, spacing_mm: float
) -> tuple[Array, Array]:
  """Draws bowel and vessels into the fat between the viscera, and a lesion into the pancreas.

  Args:
    key: random key.
    materials: numbers of `materials`, uint8 [X, Y, Z] in their final pose.
    label: class indices or shares [X, Y, Z].
    painting: how much is drawn, static.
    spacing_mm: between the voxels, static.

  Returns:
    both changed. A lesion grows out of the pancreas into fat, and is labelled as the pancreas is;
    of shares it has the largest of the pancreas in the patch.
    Without clutter the fat between the viscera is that of the rest of the body.
  """
  if painting.clutter[1] or painting.lesions:
    materials, label = _draw_unnamed(key, materials, label, painting, spacing_mm)
  if not painting.clutter[1]:
    # All fat is alike then, as the map has it.
    materials = jnp.where(materials == VISCERAL_FAT, jnp.uint8(ALL_ORGANS["fat"]), materials)
  return materials, label


def _draw_unnamed(
  key: Array, materials: Array, label: Array, painting: Painting, spacing_mm: float
) -> tuple[Array, Array]:
  """Draws what is asked for; see `vary_anatomy`."""
  number_key, field_key, lesion_key = jax.random.split(key, 3)
  draws = _Draws(*jax.random.uniform(number_key, (len(_Draws._fields),)))
  x, y, z = materials.shape
  lengths = [length / spacing_mm for length in _LENGTHS_MM]
  loops, first, second, white = draw_fields(field_key, (x, y, z), lengths)
  # Where two sheets cross there is a tube, of which |first| and |second| tell the distance.
  off_tube = jnp.maximum(jnp.abs(first), jnp.abs(second))
  pancreas = materials == ALL_ORGANS["pancreas"]
  if painting.clutter[1]:
    crowding = _CROWDING * draws.crowding * _blur_mask(pancreas, _BESIDE_MM / spacing_mm)
    materials = _clutter_fat(materials, loops + crowding, off_tube, draws, painting)
  if painting.lesions:
    exists = (draws.lesion < painting.lesions) & pancreas.any()
    wide = exists & (draws.wide_duct < _WIDE_DUCTS)
    in_duct = wide & (off_tube < _find_tube_width(_DUCT_SHARE * draws.duct))
    materials = jnp.where(pancreas & in_duct, jnp.uint8(DUCT), materials)
    place = _choose_voxel(pancreas, white)
    grown = _fill_lesion(lesion_key, place, first, draws, spacing_mm)
    grown &= exists & (pancreas | (materials >= VISCERAL_FAT))
    materials = jnp.where(grown, jnp.uint8(LESION), materials)
    label = _label_lesion(label, grown, pancreas, place)
  return materials, label


def _label_lesion(label: Array, grown: Array, pancreas: Array, place: tuple[Array, ...]) -> Array:
  """Labels a lesion as the pancreas that it grew from; nobody knows a voxel that is unlabelled."""
  known = label != UNLABELLED
  if not jnp.issubdtype(label.dtype, jnp.floating):
    # A voxel of the pancreas keeps its class.
    return jnp.where(grown & ~pancreas & known, label[place], label)
  # Any one voxel may lie on the rim and be filled by half; where a lesion is, all is lesion.
  share = jnp.max(jnp.where(pancreas & known, label, -1))
  return jnp.where(grown & known, jnp.where(share < 0, UNLABELLED, share), label)


def _blur_mask(mask: Array, sd: float) -> Array:
  operators = [gaussian_operator(size, sd) for size in mask.shape]
  return apply_along_axes(operators, mask.astype(jnp.float32))


def _clutter_fat(
  materials: Array, loops: Array, off_tube: Array, draws: _Draws, painting: Painting
) -> Array:
  """Draws loops of bowel and vessels into the fat between the viscera."""
  low, high = painting.clutter
  share = low + (high - low) * draws.clutter
  # Two fifths of it are loops at least. Normal fields: the threshold that a share of it exceeds.
  threshold = jnp.sqrt(2.0) * erfinv(1 - 2 * jnp.clip(share * (0.4 + 0.6 * draws.loops), 1e-4, 1))
  drawn = jnp.where(loops > threshold + _WALL, LOOP_CONTENT, LOOP_WALL)
  drawn = jnp.where(loops > threshold, drawn, VISCERAL_FAT)
  is_vessel = off_tube < _find_tube_width(_VESSELS * share * draws.vessels)
  drawn = jnp.where(is_vessel, VESSEL, drawn).astype(materials.dtype)
  return jnp.where(materials == VISCERAL_FAT, drawn, materials)


def _find_tube_width(share: Array) -> Array:
  """Returns below what the larger of two normal fields lies, without sign, in a share of voxels."""
  return jnp.sqrt(2.0) * erfinv(jnp.sqrt(share))


def _choose_voxel(mask: Array, white: Array) -> tuple[Array, ...]:
  """Returns the indices of a voxel of a mask, each as likely as any other, by white noise."""
  return jnp.unravel_index(jnp.argmax(jnp.where(mask, white, -jnp.inf)), mask.shape)


def _fill_lesion(
  key: Array, place: tuple[Array, ...], outline: Array, draws: _Draws, spacing_mm: float
) -> Array:
  """Returns the voxels of an ellipsoid about a place, whose outline a normal field moves."""
  low, high = _RADIUS_MM
  axes = low * (high / low) ** draws.radius * jnp.exp(_ELONGATION * jax.random.normal(key, (3,)))
  places = jnp.meshgrid(*map(jnp.arange, outline.shape), indexing="ij", sparse=True)
  squares = [
    (spacing_mm * (along - middle) / axis) ** 2
    for along, middle, axis in zip(places, place, axes, strict=True)
  ]
  return jnp.sqrt(sum(squares)) + _OUTLINE * outline < 1
