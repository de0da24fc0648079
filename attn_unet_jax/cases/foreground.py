"""Lists the foreground voxels of a case, on which patches are centred."""

import numpy as np

from attn_unet_jax.labels import SHARE_STEPS, UNLABELLED, is_foreground

# Per case: enough that a patch centre seldom repeats. `patches.padded_case` gives every case that
# many rows, so that the positions of a set stack to one array.
MOST = 1024


def foreground_positions(label: np.ndarray, *, soft: bool = False) -> np.ndarray:
  """Returns at most `MOST` foreground voxels, evenly spaced over all of them in memory order.

  Args:
    label: classes uint8 `[X, Y, Z]`; background and what has no class do not count.
    soft: whether it holds shares instead, of which at least half a voxel counts.

  Returns:
    their indices, int32 `[K, 3]`.
  """
  half_filled = (label >= SHARE_STEPS // 2) & (label != UNLABELLED)
  voxels = np.flatnonzero(half_filled if soft else is_foreground(label))
  # Evenly spaced instead of drawn: a case is prepared with the same positions on every host.
  kept = voxels[np.linspace(0, len(voxels) - 1, min(MOST, len(voxels))).astype(int)]
  return np.transpose(np.unravel_index(kept, label.shape)).astype(np.int32)
