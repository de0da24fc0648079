"""What of an organ a network learns: its interior, or its boundary (Roth et al. 2018, HNN-B).

The boundary is the organ's outermost layer, one voxel of the working grid deep: the foreground
less its erosion by the six neighbours. It is one for all views, so that a slice shows it wider
where the surface lies flat in the slice. A scan's or a patch's border makes no boundary. A voxel of
which a neighbour is unlabelled, and none is background, is unlabelled.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import ndimage

from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.volumes.volume import Volume


def keep_boundary(label: Array) -> Array:
  """Class indices [X, Y, Z] with the interior made background; runs on the device."""
  inside = (label > 0) & (label != UNLABELLED)
  edge = inside & _touches_other(label == 0)
  unknown = (label == UNLABELLED) | (inside & _touches_other(label == UNLABELLED))
  kept = jnp.where(edge, label, jnp.where(unknown, UNLABELLED, 0))
  return kept.astype(label.dtype)


def _touches_other(mask: Array) -> Array:
  """Which voxels have one of the six neighbours in the mask; beyond the border there is none."""
  found = jnp.zeros_like(mask)
  for axis in range(3):
    padded = jnp.pad(mask, [(1, 1) if a == axis else (0, 0) for a in range(3)])
    n = mask.shape[axis]
    for start in (0, 2):
      found |= jnp.take(padded, jnp.arange(start, start + n), axis)
  return found


def native_boundary(classes: Volume, depth_mm: float) -> Volume:
  """The same on a case's own grid, to score against: a layer of the working voxel's depth.

  Args:
    classes: class indices, uint8.
    depth_mm: `data.spacing_mm`. Along each axis it is rounded to whole voxels, one at least.
  """
  reach = [max(1, round(depth_mm / spacing)) for spacing in classes.spacing]
  cross = np.zeros([2 * n + 1 for n in reach], bool)
  for axis in range(3):
    cross[tuple(slice(None) if a == axis else n for a, n in enumerate(reach))] = True
  label = classes.array
  inside, unlabelled = (label > 0) & (label != UNLABELLED), label == UNLABELLED
  deep, not_beside_background = (
    ndimage.binary_erosion(mask, cross, border_value=1) for mask in (inside, inside | unlabelled)
  )
  kept = np.where(inside & deep, 0, label)
  kept[inside & ~deep & not_beside_background] = UNLABELLED
  return Volume(kept, classes.affine)
