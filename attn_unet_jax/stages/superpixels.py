"""Divides axial slices into superpixels along the boundaries that a network predicts.

The paper uses region proposals of MCG, which needs MATLAB. A compact watershed of the boundary map
(Neubert and Protzel 2014) replaces it here.
"""

import numpy as np
from scipy import ndimage

from attn_unet_jax.stages.optional import require_extra

# The weight of a millimetre to the marker against the boundary's probability. Over the 12 mm of a
# superpixel it is less than a weak boundary; without any boundary it gives squares.
_COMPACTNESS_PER_MM = 0.005
_WITHIN_SLICES = ndimage.generate_binary_structure(3, 1) & np.array([False, True, False])


def make_superpixels(boundary: np.ndarray, spacing_mm: float, side_mm: float) -> np.ndarray:
  """Divides every axial slice into superpixels.

  Args:
    boundary: probability of the boundary [X, Y, Z], slices along Z.
    spacing_mm: spacing of the isotropic grid.
    side_mm: approximate side of a superpixel; 12 mm are 200 to 400 pixels of 0.6 to 0.85 mm.

  Returns:
    the number of each voxel's superpixel, int32 [X, Y, Z]: 0 to n - 1, each in one slice only.

  Raises:
    UserError: scikit-image is not installed.
  """
  # At least two voxels: with markers at every voxel nothing would be joined.
  side = max(2, round(side_mm / spacing_mm))
  watershed = require_extra("skimage.segmentation").watershed
  # Without connections along Z, no superpixel extends over several slices.
  found = watershed(
    boundary,
    markers=_place_markers(boundary.shape, side),
    connectivity=_WITHIN_SLICES,
    compactness=_COMPACTNESS_PER_MM * spacing_mm,
  )
  result: np.ndarray = found.astype(np.int32) - 1
  return result


def _place_markers(shape: tuple[int, ...], side: int) -> np.ndarray:
  """Places numbers from 1 on a square lattice in every slice, at least one; 0 elsewhere."""
  x, y = (np.arange(min(side // 2, n // 2), n, side) for n in shape[:2])
  markers = np.zeros(shape, np.int32)
  count = len(x) * len(y) * shape[2]
  markers[np.ix_(x, y)] = 1 + np.arange(count).reshape(len(x), len(y), shape[2])
  return markers
