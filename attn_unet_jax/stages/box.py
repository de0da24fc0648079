"""The box of the second stage, found in the first stage's answer, and how good it is."""

import numpy as np

from attn_unet_jax.stages.body import largest_opened
from attn_unet_jax.volumes.box import Box, tight_box
from attn_unet_jax.volumes.volume import Grid, Volume

_THRESHOLD = 0.5


def find(probability: np.ndarray, grid: Grid, margin_mm: float = 0.0) -> Box | None:
  """Around the largest opened component above 0.5; None where nothing is left of the answer.

  Args:
    probability: of the foreground, [X, Y, Z].
    grid: its (working) grid.
    margin_mm: added on each side; the paper adds none.
  """
  box = tight_box(largest_opened(probability > _THRESHOLD), grid)
  return box.grown(margin_mm) if box else None


def recall(box: Box, label: Volume) -> float:
  """Share of the foreground voxels of a canonical label map that the box holds; NaN of none."""
  total = np.count_nonzero(label.array)
  inside = np.count_nonzero(label.array[box.centres(label.grid)])
  return inside / total if total else float("nan")


def volume_reduction(box: Box, grid: Grid) -> float:
  """Share of the scan that the box leaves out."""
  half = np.array(grid.shape) * grid.spacing / 2
  extent = np.minimum(box.high, half) - np.maximum(box.low, -half)
  return float(1 - np.prod(np.maximum(extent, 0)) / np.prod(2 * half))
