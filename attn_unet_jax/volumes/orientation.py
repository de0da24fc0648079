"""Turns volumes to canonical axes and back, by permuting and flipping axes, so nothing is lost.

Canonical means that array axis X points to the patient's right, Y to the front and Z to the head
as closely as whole axes can; an oblique affine stays oblique.
"""

from __future__ import annotations

import numpy as np
from nibabel import orientations

from attn_unet_jax.volumes.volume import Grid, Volume


def canonical_grid(grid: Grid) -> Grid:
  """Returns the grid of the same voxels with its axes turned to the closest RAS+."""
  turn = orientations.io_orientation(grid.affine)
  shape = np.empty(3, int)
  shape[turn[:, 0].astype(int)] = grid.shape  # row i names the canonical axis of the array's axis i
  return Grid(tuple(shape), grid.affine @ orientations.inv_ornt_aff(turn, grid.shape))


def to_canonical(volume: Volume) -> Volume:
  """Turns a volume's axes to the closest RAS+; its values become a view, not a copy."""
  turn = orientations.io_orientation(volume.affine)
  array = orientations.apply_orientation(volume.array, turn)
  return Volume(array, canonical_grid(volume.grid).affine)


def from_canonical(canonical: np.ndarray, like: Grid) -> Volume:
  """Puts canonical values back on the axes of the grid that they came from.

  Args:
    canonical: values [X, Y, Z] on `canonical_grid(like)`.
    like: the grid to return to.

  Returns:
    the values on exactly `like`'s shape and affine.

  Raises:
    ValueError: the values do not have the shape of `canonical_grid(like)`.
  """
  expected = canonical_grid(like).shape
  if canonical.shape != expected:
    raise ValueError(f"values of shape {canonical.shape} do not fit the canonical {expected}")
  # From RAS+, which the identity affine stands for, to the orientation of `like`.
  back = orientations.ornt_transform(
    orientations.io_orientation(np.eye(4)), orientations.io_orientation(like.affine)
  )
  return Volume(orientations.apply_orientation(canonical, back), like.affine)
