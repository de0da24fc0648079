"""Finds the patient in a scan: the largest component denser than lung and air."""

import numpy as np
from scipy import ndimage

from attn_unet_jax.volumes.box import Box, bounding_box, box_from_slices
from attn_unet_jax.volumes.components import SIX_NEIGHBOURS, largest_component
from attn_unet_jax.volumes.volume import Volume

_BODY_HU = -500  # between lung or air and soft tissue; as in the release of Roth et al. 2018


def open_and_keep_largest(mask: np.ndarray) -> np.ndarray:
  """Erodes by one voxel, keeps the largest 6-connected component, dilates by one voxel.

  The result is a subset of `mask`, without a table or a vessel that is connected by less than three
  voxels.

  Args:
    mask: bool [X, Y, Z].
  """
  # Voxels beyond the volume count as inside, as in the released code: otherwise the erosion would
  # remove the first and the last slice, in which a scan cuts the body.
  eroded = ndimage.binary_erosion(mask, SIX_NEIGHBOURS, border_value=1)
  result: np.ndarray = ndimage.binary_dilation(largest_component(eroded), SIX_NEIGHBOURS)
  return result


def body_box(volume: Volume) -> Box:
  """Returns the box around the patient in a canonical scan, HU; the whole scan if none is found."""
  found = bounding_box(open_and_keep_largest(volume.array > _BODY_HU), volume.grid)
  if found is not None:
    return found
  x, y, z = volume.shape
  return box_from_slices((slice(0, x), slice(0, y), slice(0, z)), volume.grid)
