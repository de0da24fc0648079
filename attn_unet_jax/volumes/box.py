"""Boxes in a scan, in millimetres, so that one box holds for grids of any spacing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from attn_unet_jax.volumes.volume import Grid, Volume

Shape = tuple[int, int, int]
Slices = tuple[slice, slice, slice]
_Corner = tuple[float, float, float]


@dataclasses.dataclass(frozen=True)
class Box:
  """A box along the canonical axes, in mm from the middle of the field of view.

  A native grid and its working grids have the middle and the axes in common, so the box holds for
  all of them. Voxel `i` of an axis of `n` voxels and spacing `s` reaches from `(i - n / 2) s` to
  `(i + 1 - n / 2) s`.

  Attributes:
    low: the lowest corner.
    high: the highest corner.
  """

  low: _Corner
  high: _Corner

  def voxel_slices(self, grid: Grid, at_least: Shape = (1, 1, 1)) -> Slices:
    """Returns the voxels that the box touches, widened evenly to at least a given extent.

    Args:
      grid: a grid with canonical axes.
      at_least: the extent in voxels, as far as the grid has room for it.

    Raises:
      ValueError: the box lies outside the grid.
    """
    return _to_slices(
      _extent_along_axis(*axis)
      for axis in zip(*self._corners_in_voxels(grid), grid.shape, at_least, strict=True)
    )

  def centre_slices(self, grid: Grid) -> Slices:
    """Returns the voxels whose centres lie in the box; there may be none."""
    low, high = self._corners_in_voxels(grid)
    return _to_slices(
      # Voxel i has its centre at i + 1/2.
      (max(0, math.ceil(a - 0.5)), max(0, math.ceil(b - 0.5)))
      for a, b in zip(low, high, strict=True)
    )

  def add_margin(self, margin_mm: float) -> Box:
    """Returns the box with a margin on each side."""
    low, high = np.array(self.low) - margin_mm, np.array(self.high) + margin_mm
    return box_from_corners(low, high)

  def union_with(self, other: Box | None) -> Box:
    """Returns the smallest box that holds this one and another."""
    if other is None:
      return self
    low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
    return box_from_corners(low, high)

  def _corners_in_voxels(self, grid: Grid) -> tuple[list[float], list[float]]:
    """Returns both corners in voxels from the grid's lowest edge."""
    # Rounded, so that a corner that was computed from a voxel's edge is that edge again, and
    # `floor` and `ceil` do not take in one voxel more.
    size = np.array(grid.shape)
    edges = (np.array([self.low, self.high]) / grid.spacing + size / 2).round(6)
    low, high = edges.tolist()
    return low, high


def box_from_corners(low: np.ndarray, high: np.ndarray) -> Box:
  """Builds a box from its lowest and its highest corner, each [3] in mm."""
  return Box(_to_corner(low), _to_corner(high))


def box_from_slices(where: Slices, grid: Grid) -> Box:
  """Returns the box that the voxels of a grid fill."""
  half, spacing = np.array(grid.shape) / 2, np.array(grid.spacing)
  low = (np.array([part.start for part in where]) - half) * spacing
  high = (np.array([part.stop for part in where]) - half) * spacing
  return box_from_corners(low, high)


def bounding_box(mask: np.ndarray, grid: Grid) -> Box | None:
  """Returns the smallest box around a mask `[X, Y, Z]` on its grid; None for an empty mask."""
  where = bounding_slices(mask)
  return None if where is None else box_from_slices(where, grid)


def bounding_slices(mask: np.ndarray) -> Slices | None:
  """Returns the smallest box of voxels that holds a mask `[X, Y, Z]`; None for an empty mask.

  Args:
    mask: bool, or of any type in which 0 is outside.
  """
  ends = []
  for others in ((1, 2), (0, 2), (0, 1)):
    found = np.flatnonzero(mask.any(axis=others))
    if not found.size:
      return None
    ends.append((int(found[0]), int(found[-1]) + 1))
  return _to_slices(ends)


def crop_volume(volume: Volume, where: Slices) -> Volume:
  """Crops a volume; the part keeps its place in the patient."""
  affine = volume.affine.copy()
  affine[:3, 3] += affine[:3, :3] @ [part.start for part in where]
  return Volume(volume.array[where], affine)


def paste_probabilities(probabilities: np.ndarray, where: Slices, shape: Shape) -> np.ndarray:
  """Puts the class probabilities of a crop into a volume that is background elsewhere.

  Args:
    probabilities: [x, y, z, K] of the crop.
    where: the crop's place.
    shape: (X, Y, Z) of the volume.

  Returns:
    probabilities [X, Y, Z, K].
  """
  whole = np.zeros((*shape, probabilities.shape[-1]), probabilities.dtype)
  whole[..., 0] = 1  # class 0 is the background
  whole[where] = probabilities
  return whole


def share_inside(box: Box, mask: Volume) -> float:
  """Returns the share of a canonical mask's voxels that lie in the box; NaN for an empty mask."""
  total = np.count_nonzero(mask.array)
  inside = np.count_nonzero(mask.array[box.centre_slices(mask.grid)])
  return inside / total if total else math.nan


def share_left_out(box: Box, grid: Grid) -> float:
  """Returns the share of the field of view that lies outside the box."""
  half = np.array(grid.field_mm) / 2
  # The box may reach beyond the field of view, or lie outside it.
  extent = np.minimum(box.high, half) - np.maximum(box.low, -half)
  return float(1 - np.prod(np.maximum(extent, 0)) / np.prod(2 * half))


def _extent_along_axis(low: float, high: float, n: int, least: int) -> tuple[int, int]:
  """Returns the first voxel and the one after the last, along an axis of `n` voxels."""
  first, last = max(0, math.floor(low)), min(n, math.ceil(high))
  if first >= last:
    raise ValueError(f"it reaches from voxel {low:g} to {high:g} of an axis of {n}")
  extent = max(last - first, min(least, n))
  # Half of the growth goes below. At a border of the grid all of it goes to the other side.
  first = min(max(0, first - (extent - (last - first)) // 2), n - extent)
  return first, first + extent


def _to_slices(ends: Iterable[tuple[int, int]]) -> Slices:
  x, y, z = (slice(a, b) for a, b in ends)
  return x, y, z


def _to_corner(values: np.ndarray) -> _Corner:
  x, y, z = values.tolist()
  return x, y, z
