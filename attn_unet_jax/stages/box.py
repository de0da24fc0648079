"""Finds the box of the second stage in the first stage's probabilities."""

import numpy as np

from attn_unet_jax.stages.body import open_and_keep_largest
from attn_unet_jax.volumes.box import Box, bounding_box
from attn_unet_jax.volumes.volume import Grid

# As in the release of Roth et al. 2018.
_THRESHOLD = 0.5


def find_box(probability: np.ndarray, grid: Grid, margin_mm: float = 0.0) -> Box | None:
  """Finds the box around the largest component above 0.5 after an opening; None if none is left.

  Args:
    probability: probability of the foreground, [X, Y, Z].
    grid: its working grid.
    margin_mm: margin on each side; the paper adds none.
  """
  box = bounding_box(open_and_keep_largest(probability > _THRESHOLD), grid)
  return box.add_margin(margin_mm) if box else None
