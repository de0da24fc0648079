"""A box in a scan, in millimetres, so that grids of any spacing over one field of view share it."""

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
  """Lowest and highest corner in mm along the canonical axes, from the middle of the field of view.

  The middle and the axes are what a native grid and its working grids have in common. Voxel `i` of
  an axis of `n` voxels and spacing `s` reaches from `(i - n / 2) s` to `(i + 1 - n / 2) s`.
  """

  low: _Corner
  high: _Corner

  def voxel_slices(self, grid: Grid, at_least: Shape = (1, 1, 1)) -> Slices:
    """The voxels that the box touches, grown evenly to an extent where the grid has room for it.

    Args:
      grid: canonical axes.
      at_least: least extent in voxels.

    Raises:
      ValueError: the box lies outside the grid.
    """
    return _to_slices(
      _extent_along_axis(*axis)
      for axis in zip(*self._corners_in_voxels(grid), grid.shape, at_least, strict=True)
    )

  def centre_slices(self, grid: Grid) -> Slices:
    """The voxels whose centres lie in the box; perhaps none."""
    low, high = self._corners_in_voxels(grid)
    return _to_slices(
      (max(0, math.ceil(a - 0.5)), max(0, math.ceil(b - 0.5)))
      for a, b in zip(low, high, strict=True)
    )

  def add_margin(self, margin_mm: float) -> Box:
    """The box with a margin on each side."""
    low, high = np.array(self.low) - margin_mm, np.array(self.high) + margin_mm
    return box_from_corners(low, high)

  def union_with(self, other: Box | None) -> Box:
    """The smallest box that holds both."""
    if other is None:
      return self
    low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
    return box_from_corners(low, high)

  def _corners_in_voxels(self, grid: Grid) -> tuple[list[float], list[float]]:
    """Both corners in voxels from the grid's lowest edge; 1e-6 voxel counts as nothing."""
    size = np.array(grid.shape)
    edges = (np.array([self.low, self.high]) / grid.spacing + size / 2).round(6)
    low, high = edges.tolist()
    return low, high


def box_from_corners(low: np.ndarray, high: np.ndarray) -> Box:
  """The box of these corners, each [3] in mm."""
  return Box(_to_corner(low), _to_corner(high))


def box_from_slices(where: Slices, grid: Grid) -> Box:
  """The box that these voxels fill."""
  half, spacing = np.array(grid.shape) / 2, np.array(grid.spacing)
  low = (np.array([part.start for part in where]) - half) * spacing
  high = (np.array([part.stop for part in where]) - half) * spacing
  return box_from_corners(low, high)


def bounding_box(mask: np.ndarray, grid: Grid) -> Box | None:
  """The smallest box around a mask `[X, Y, Z]` on its grid; None around nothing."""
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
  """A part of a volume, in its place in the patient."""
  affine = volume.affine.copy()
  affine[:3, 3] += affine[:3, :3] @ [part.start for part in where]
  return Volume(volume.array[where], affine)


def paste_probabilities(probabilities: np.ndarray, where: Slices, shape: Shape) -> np.ndarray:
  """Class probabilities of a part, `[x, y, z, K]`, in a whole that is background elsewhere."""
  whole = np.zeros((*shape, probabilities.shape[-1]), probabilities.dtype)
  whole[..., 0] = 1
  whole[where] = probabilities
  return whole


def share_inside(box: Box, mask: Volume) -> float:
  """Share of the voxels of a canonical mask that the box holds (its recall); NaN of none."""
  total = np.count_nonzero(mask.array)
  inside = np.count_nonzero(mask.array[box.centre_slices(mask.grid)])
  return inside / total if total else math.nan


def share_left_out(box: Box, grid: Grid) -> float:
  """Share of the field of view that the box leaves out (its reduction of the volume)."""
  half = np.array(grid.field_mm) / 2
  extent = np.minimum(box.high, half) - np.maximum(box.low, -half)
  return float(1 - np.prod(np.maximum(extent, 0)) / np.prod(2 * half))


def _extent_along_axis(low: float, high: float, n: int, least: int) -> tuple[int, int]:
  """First voxel and the one after the last, along one axis of `n`."""
  first, last = max(0, math.floor(low)), min(n, math.ceil(high))
  if first >= last:
    raise ValueError(f"it reaches from voxel {low:g} to {high:g} of an axis of {n}")
  extent = max(last - first, min(least, n))
  first = min(max(0, first - (extent - (last - first)) // 2), n - extent)
  return first, first + extent


def _to_slices(ends: Iterable[tuple[int, int]]) -> Slices:
  x, y, z = (slice(a, b) for a, b in ends)
  return x, y, z


def _to_corner(values: np.ndarray) -> _Corner:
  x, y, z = values.tolist()
  return x, y, z
