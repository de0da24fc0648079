"""Turns labels of an organ's interior into labels of its boundary (Roth et al. 2018, HNN-B).

The boundary is the organ's outermost layer, one voxel of the working grid deep: the foreground
less its erosion by the six neighbours. It is computed in 3-D and shared by all views, so it looks
wider in a slice to which the surface is nearly parallel. The border of a scan or a patch is no
boundary. A foreground voxel becomes unlabelled if a neighbour is unlabelled and none is background.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy import ndimage

from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.volumes.volume import Volume


def keep_boundary(label: Array) -> Array:
  """Sets the interior of the organ to background; class indices [X, Y, Z], on the device."""
  inside = (label > 0) & (label != UNLABELLED)
  edge = inside & _touches_other(label == 0)
  unknown = (label == UNLABELLED) | (inside & _touches_other(label == UNLABELLED))
  kept = jnp.where(edge, label, jnp.where(unknown, UNLABELLED, 0))
  return kept.astype(label.dtype)


def _touches_other(mask: Array) -> Array:
  """Finds the voxels of which one of the six neighbours is in the mask."""
  found = jnp.zeros_like(mask)
  for axis in range(3):
    # Padded with False: what lies beyond the border is not in the mask.
    padded = jnp.pad(mask, [(1, 1) if a == axis else (0, 0) for a in range(3)])
    n = mask.shape[axis]
    for start in (0, 2):
      found |= jnp.take(padded, jnp.arange(start, start + n), axis)
  return found


def native_boundary(classes: Volume, depth_mm: float) -> Volume:
  """Returns the boundary on a case's native grid, as ground truth for scores.

  It is as deep as a voxel of the working grid.

  Args:
    classes: class indices, uint8.
    depth_mm: `data.spacing_mm`. Along each axis it is rounded to whole voxels, at least one.
  """
  reach = [max(1, round(depth_mm / spacing)) for spacing in classes.spacing]
  # Along the axes alone, as the six neighbours on the working grid are.
  cross = np.zeros([2 * n + 1 for n in reach], bool)
  for axis in range(3):
    cross[tuple(slice(None) if a == axis else n for a, n in enumerate(reach))] = True
  label = classes.array
  # As in `keep_boundary`: beside an unlabelled voxel nobody knows whether the organ ends.
  inside, unlabelled = (label > 0) & (label != UNLABELLED), label == UNLABELLED
  deep, not_beside_background = (
    # `border_value` 1 keeps the erosion from starting at the border of the scan.
    ndimage.binary_erosion(mask, cross, border_value=1)
    for mask in (inside, inside | unlabelled)
  )
  kept = np.where(inside & deep, 0, label)
  kept[inside & ~deep & not_beside_background] = UNLABELLED
  return Volume(kept, classes.affine)
