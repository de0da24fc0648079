"""Foreground voxels of a case, on which patches are centred: listed once, when it is prepared."""

import numpy as np

from attn_unet_jax.labels import UNLABELLED

MOST = 1024  # per case: enough that no patch centre repeats often


def foreground_positions(label: np.ndarray) -> np.ndarray:
  """At most `MOST` foreground voxels, evenly spread over all of them in memory order.

  Args:
    label: classes uint8 `[X, Y, Z]`; neither background nor `UNLABELLED` counts.

  Returns:
    int32 `[K, 3]`.
  """
  voxels = np.flatnonzero((label > 0) & (label != UNLABELLED))
  kept = voxels[np.linspace(0, len(voxels) - 1, min(MOST, len(voxels))).astype(int)]
  return np.transpose(np.unravel_index(kept, label.shape)).astype(np.int32)
