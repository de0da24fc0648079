"""Fat between the viscera, apart from that beneath the skin. On the host, once a case."""

from math import ceil

import numpy as np
from scipy import ndimage

from tfds_pancreas.abdomen.organs import ALL_ORGANS

_GAP_MM = 50.0  # half the widest gap between two organs that is closed
_COARSE_MM = 6.0


def find_visceral_fat(organs: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
  """Finds the fat that lies between other organs, bool [X, Y, Z]: a closing of them less them.

  Args:
    organs: values of ALL_ORGANS, integers [X, Y, Z].
    spacing: millimetres between voxels.
  """
  fat = organs == ALL_ORGANS["fat"]
  solid = ~fat & (organs != ALL_ORGANS["background"]) & (organs != ALL_ORGANS["skin"])
  # So wide a closing needs no fine voxels, of which the first one of several stands for all.
  steps = [max(1, round(_COARSE_MM / step)) for step in spacing]
  coarse_mm = [n * step for n, step in zip(steps, spacing, strict=True)]
  widths = [(ceil(2 * _GAP_MM / step),) * 2 for step in coarse_mm]
  # The border is repeated: organs go on beyond it.
  solid = np.pad(solid[tuple(slice(None, None, n) for n in steps)], widths, "edge")
  if not solid.any():
    return np.zeros_like(fat)
  far = ndimage.distance_transform_edt(~solid, coarse_mm) > _GAP_MM
  if not far.any():
    return np.asarray(fat)
  closed = ndimage.distance_transform_edt(~far, coarse_mm) > _GAP_MM
  for axis, ((low, high), n) in enumerate(zip(widths, steps, strict=True)):
    inner = np.arange(low, closed.shape[axis] - high)
    closed = closed.take(np.repeat(inner, n)[: fat.shape[axis]], axis)
  found: np.ndarray = fat & closed
  return found
