"""Finds the part of a scan that holds the patient: air around the body is not segmented."""

import numpy as np
from scipy import ndimage

from attn_unet_jax.volumes.box import Slices, bounding_slices, box_from_slices
from attn_unet_jax.volumes.components import SIX_NEIGHBOURS
from attn_unet_jax.volumes.volume import Volume

BODY_HU = -500  # between lung or air and soft tissue; as in the release of Roth et al. 2018
_MARGIN_MM = 10.0  # beyond the skin, beneath which organs lie
_LEAST_SHARE = 0.05  # of the largest piece: a body may lie in a scan in several pieces
# The median of what is taken for the body: from a child's belly to a fat one's. Where HU are
# shifted, bone alone may be above the threshold, or everything.
_TISSUE_HU = (-200.0, 200.0)


def find_body(volume: Volume) -> Slices:
  """Returns the voxels of a box around the body in a canonical scan, with a margin.

  The box holds all pieces denser than lung that are not small, a table too: rather too much than a
  part of the patient. Where no body is recognised it is the whole scan.

  Args:
    volume: a scan on its working grid, HU.
  """
  x, y, z = volume.shape
  whole = slice(0, x), slice(0, y), slice(0, z)
  pieces, count = ndimage.label(volume.array > BODY_HU, SIX_NEIGHBOURS)
  if not count:
    return whole
  sizes = np.bincount(pieces.ravel())
  sizes[0] = 0
  largest = int(np.argmax(sizes))
  median = float(np.median(volume.array[pieces == largest]))
  if not _TISSUE_HU[0] <= median <= _TISSUE_HU[1]:
    return whole
  kept = bounding_slices((sizes >= _LEAST_SHARE * sizes[largest])[pieces])
  assert kept is not None
  return box_from_slices(kept, volume.grid).add_margin(_MARGIN_MM).voxel_slices(volume.grid)
