"""Finds the part of a scan that holds the patient, and the air around it."""

import numpy as np
from scipy import ndimage

from attn_unet_jax.volumes.box import Slices, bounding_slices, box_from_slices
from attn_unet_jax.volumes.components import SIX_NEIGHBOURS
from attn_unet_jax.volumes.volume import Volume

BODY_HU = -500  # between lung or air and soft tissue; as in the release of Roth et al. 2018
_AIR_HU = -900  # between air and lung
_MARGIN_MM = 10.0  # beyond the skin, beneath which organs lie
_SHELL_MM = 6.0  # what is thinner in an axial plane is a shell of the table, a cloth or a tube
_GROWN_MM = 12.0  # as far as thin walls over gas go on from thicker ones
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
  pieces = _keep_tissue(volume.array, volume.array > BODY_HU)
  if pieces is None:
    return slice(0, x), slice(0, y), slice(0, z)
  kept = bounding_slices(pieces)
  assert kept is not None
  return box_from_slices(kept, volume.grid).add_margin(_MARGIN_MM).voxel_slices(volume.grid)


def find_outside(volume: Volume) -> np.ndarray:
  """Returns which voxels of a canonical scan lie outside the body, bool `[X, Y, Z]`.

  Outside is the air that reaches the sides of the axial planes, and what stands in it without being
  a part of the body: a table, hollow or not, and cloths. Lungs and gas in the body are inside, also
  where they reach the first or last slice. Where a scan shows no air, or no body is recognised,
  nothing is outside. Gas of the bowel that a narrow field of view cuts is taken for air.

  Args:
    volume: a scan on its working grid of one spacing, HU.
  """
  hu, spacing = volume.array, volume.spacing[0]
  # In the memory order of what is made of it: arrays of two orders take long to combine.
  dense = np.greater(hu, BODY_HU, order="C")
  # Without the shells of a table, which may touch the body.
  tissue = _keep_tissue(hu, _open_planes(dense, round(_SHELL_MM / 2 / spacing)))
  if tissue is None:
    return np.zeros(hu.shape, bool)
  # The opening also took folds of skin, and thin walls over gas.
  for _ in range(round(_GROWN_MM / spacing)):
    tissue = _dilate_mask(tissue) & dense
  return _find_outer_air(hu, tissue)


def _keep_tissue(hu: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
  """Returns the pieces of a mask that are not small; None if they are no body by their HU."""
  pieces, count = ndimage.label(mask, SIX_NEIGHBOURS)
  if not count:
    return None
  sizes = _count_voxels(pieces, count)
  sizes[0] = 0
  largest = int(np.argmax(sizes))
  median = float(np.median(hu[pieces == largest]))
  if not _TISSUE_HU[0] <= median <= _TISSUE_HU[1]:
    return None
  kept: np.ndarray = (sizes >= _LEAST_SHARE * sizes[largest])[pieces]
  return kept


def _open_planes(mask: np.ndarray, steps: int) -> np.ndarray:
  """Returns a mask without what is at most `2 * steps` voxels thin in an axial plane."""
  # Not across planes, since a slab may have two of them. Nothing comes in from the sides, beyond
  # which a body goes on that they cut.
  outside = ~mask
  for _ in range(steps):
    outside = _dilate_mask(outside, (0, 1))
  opened = ~outside
  for _ in range(steps):
    opened = _dilate_mask(opened, (0, 1))
  return opened


def _dilate_mask(mask: np.ndarray, axes: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
  """Returns a mask with its neighbours along some axes; SciPy's takes five times as long."""
  grown = mask.copy()
  for axis in axes:
    given, taken = np.moveaxis(mask, axis, 0), np.moveaxis(grown, axis, 0)
    taken[1:] |= given[:-1]
    taken[:-1] |= given[1:]
  return grown


def _find_outer_air(hu: np.ndarray, tissue: np.ndarray) -> np.ndarray:
  """Returns the pieces without tissue that reach a side of the axial planes and are mostly air."""
  pieces, count = ndimage.label(~tissue, SIX_NEIGHBOURS)
  reaches = np.zeros(count + 1, bool)
  for side in (pieces[[0, -1]], pieces[:, [0, -1]]):
    reaches[side] = True
  # The tissue itself, number 0, may reach a side, and so may a lung that a narrow field of view
  # cuts: neither is air.
  is_air = 2 * _count_voxels(pieces, count, hu < _AIR_HU) >= _count_voxels(pieces, count)
  outer: np.ndarray = (reaches & is_air)[pieces]
  return outer


def _count_voxels(pieces: np.ndarray, count: int, among: np.ndarray | None = None) -> np.ndarray:
  """Returns the voxels of each of `count` pieces, and before them those that are in no piece.

  Args:
    pieces: the number of the piece of each voxel, 0: none, [X, Y, Z].
    count: the number of pieces.
    among: counts these voxels only, bool [X, Y, Z].
  """
  sizes = np.zeros(count + 1, np.int64)
  # Plane by plane, since NumPy counts in a copy of eight bytes a voxel.
  for x, plane in enumerate(pieces):
    counted = plane.ravel() if among is None else plane[among[x]]
    sizes += np.bincount(counted, minlength=count + 1)
  return sizes
