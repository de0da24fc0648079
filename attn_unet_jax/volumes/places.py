"""Divides a volume into places: an organ, a shell around it, and the rest."""

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt

from attn_unet_jax.volumes.box import bounding_slices

SHELL_MM = 10.0
PLACES = ("organ", "shell", "elsewhere")
ORGAN, SHELL, ELSEWHERE = range(3)


def divide_places(organ: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
  """Divides a volume into places.

  Args:
    organ: bool `[X, Y, Z]`.
    spacing: mm along the axes.

  Returns:
    uint8 `[X, Y, Z]`, an index into `PLACES`. A voxel outside the organ is in the shell if its
    middle lies within `SHELL_MM` of the middle of a voxel of the organ.
  """
  places = np.full(organ.shape, ELSEWHERE, np.uint8)
  box = bounding_slices(organ)
  if box is None:
    return places
  # Distances are needed near the organ alone, which is a small part of a scan.
  near = tuple(
    slice(max(0, part.start - int(SHELL_MM // mm) - 1), part.stop + int(SHELL_MM // mm) + 1)
    for part, mm in zip(box, spacing, strict=True)
  )
  distance = distance_transform_edt(~organ[near], sampling=spacing)
  places[near][distance <= SHELL_MM] = SHELL
  places[organ] = ORGAN
  return places
