"""How alike the masks of two ways to segment the same scans are."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def compare_masks(masks: Sequence[np.ndarray], first: Sequence[np.ndarray]) -> dict[str, Any]:
  """Returns the Dice of all their foreground together, and in how many voxels it differs.

  Args:
    masks: class indices or booleans, [X, Y, Z] each; what is not 0 is foreground.
    first: those that they are compared with.
  """
  pairs = [(one > 0, other > 0) for one, other in zip(masks, first, strict=True)]
  voxels = sum(int((one != other).sum()) for one, other in pairs)
  each = sum(int(one.sum() + other.sum()) for one, other in pairs)
  return {"dice_with_first": round(1 - voxels / each, 6) if each else 1.0, "voxels": voxels}
