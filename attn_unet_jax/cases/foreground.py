"""Lists the foreground voxels of a case, on which patches are centred."""

import numpy as np

from attn_unet_jax.labels import SHARE_STEPS, UNLABELLED, is_foreground

# Per case: enough that a patch centre seldom repeats. `patches.padded_case` gives every case that
# many rows, so that the positions of a set stack to one array.
MOST = 1024


def foreground_positions(
  label: np.ndarray, *, soft: bool = False, by_class: bool = False
) -> np.ndarray:
  """Returns at most `MOST` foreground voxels, evenly spaced over all of them in memory order.

  Args:
    label: classes uint8 `[X, Y, Z]`; background and what has no class do not count.
    soft: whether it holds shares instead, of which at least half a voxel counts.
    by_class: whether every class that is there has as many rows as the others, however few voxels
      it has, so that a row drawn at random is of each class alike (nnU-Net's choice).

  Returns:
    their indices, int32 `[K, 3]`; by class those of one class after those of another.
  """
  if soft:
    return _space_evenly((label >= SHARE_STEPS // 2) & (label != UNLABELLED), MOST)
  foreground = is_foreground(label)
  if not by_class:
    return _space_evenly(foreground, MOST)
  classes = np.unique(label[foreground])
  if not len(classes):
    return np.zeros((0, 3), np.int32)
  listed = [_space_evenly(label == k, MOST // len(classes)) for k in classes]
  # A small organ is listed more than once, so that it is not drawn less often than a large one.
  rows = max(map(len, listed))
  return np.concatenate([np.resize(positions, (rows, 3)) for positions in listed])


def _space_evenly(mask: np.ndarray, most: int) -> np.ndarray:
  """Returns at most so many voxels of a mask, int32 `[K, 3]`."""
  # One index a voxel, not three: an organ has many voxels, and most of them are dropped.
  voxels = np.flatnonzero(mask)
  # Evenly spaced instead of drawn: a case is prepared with the same positions on every host.
  kept = voxels[np.linspace(0, len(voxels) - 1, min(most, len(voxels))).astype(int)]
  return np.transpose(np.unravel_index(kept, mask.shape)).astype(np.int32)
