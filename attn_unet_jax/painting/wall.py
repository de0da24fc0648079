"""The wall of the body: the dense rims of bones, and fat in the muscles."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.painting.densities import Densities
from attn_unet_jax.painting.fat import share_of_fat
from attn_unet_jax.painting.options import Painting
from tfds_pancreas.abdomen.organs import ALL_ORGANS

_BONE, _MUSCLE, _FAT = (ALL_ORGANS[name] for name in ("bone", "muscle", "fat"))
# A part of the table's roughness, the least that is drawn: marrow may be as smooth as an organ.
_LEAST_ROUGHNESS = 0.1


def paint_wall(
  key: Array,
  hu: Array,
  index: Array,
  densities: Densities,
  fields: Sequence[Array],
  painting: Painting,
) -> Array:
  """Raises the rims of bones, smooths what they enclose, and mixes fat into muscles.

  Args:
    key: random key.
    hu: the patch, float32 [X, Y, Z].
    index: numbers of `materials`, int32 [X, Y, Z].
    densities: of the patient.
    fields: the texture that `hu` has, and the one on whose sheets fat lies, [X, Y, Z] each.
    painting: how much of it is drawn, static.
  """
  if not painting.bone_rim_hu[1] and not painting.muscle_fat[1]:
    return hu
  texture, sheets = fields
  rim, smoothness, fat = jax.random.uniform(key, (3,))
  if painting.bone_rim_hu[1]:
    low, high = painting.bone_rim_hu
    less = (1 - _LEAST_ROUGHNESS) * smoothness * densities.fine[_BONE] * texture
    bone = index == _BONE
    raised = jnp.where(find_rim(bone), low + (high - low) * rim, 0)
    hu = jnp.where(bone, hu - less + raised, hu)
  if painting.muscle_fat[1]:
    low, high = painting.muscle_fat
    share = jnp.where(index == _MUSCLE, share_of_fat(sheets, low + (high - low) * fat), 0)
    hu += share * (densities.mean[_FAT] - hu)
  return hu


def find_rim(mask: Array) -> Array:
  """Returns the voxels of a mask beside which, along an axis, one is not of it, bool [X, Y, Z].

  What lies beyond the patch is as what lies at its border.
  """
  padded = jnp.pad(mask, 1, mode="edge")
  inside = mask
  for axis in range(3):
    for start in (0, 2):
      cut = [slice(1, -1)] * 3
      cut[axis] = slice(start, start + mask.shape[axis])
      inside &= padded[tuple(cut)]
  return mask & ~inside
