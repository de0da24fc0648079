"""Brings volumes whose axes are not perpendicular onto straight axes, and answers back.

A scanner that tilts its gantry stacks slices along a direction that is not their normal. Such a
grid is *sheared*. Here every slice across Z stays a slice, of the same voxels, and is moved within
its own plane until it lies straight above the first one: an organ gets its true shape, and each
slice keeps its area. The straight grid is wide enough for all of them. With (x, y, z) of the
sheared canonical grid and (x', y', z) of the straight one, in voxels,

  x' = x + a y + b z + m,  y' = y + c z + n

where m and n are whole. Images are interpolated linearly. Labels are moved by whole voxels, so that
none is lost or doubled, and come back as they were.

A grid whose axes are perpendicular, to half a voxel, is only turned to canonical axes: whoever
works on straight axes calls the functions of this module instead of those of `orientation`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from attn_unet_jax.runtime import memory
from attn_unet_jax.volumes.orientation import canonical_grid, from_canonical, to_canonical
from attn_unet_jax.volumes.volume import Grid, Volume

# Below half a voxel each one still is the one that a straight grid would have there.
_HARMLESS_VOXELS = 0.5
_AIR_HU = -1000.0
MAX_TILT_DEGREES = 45.0  # gantries tilt by 30 at most


class _Shear(NamedTuple):
  """The way from a sheared canonical grid to its straight one, in voxels.

  Attributes:
    x_by_y: a, by which a row is moved along X for each row before it.
    x_by_z: b, by which a slice is moved along X for each slice before it.
    y_by_z: c, by which a slice is moved along Y.
    offset: (m, n).
    straight: the straight grid.
  """

  x_by_y: float
  x_by_z: float
  y_by_z: float
  offset: tuple[int, int]
  straight: Grid


def shear_degrees(grid: Grid) -> float:
  """Returns how far the angle between two axes is from a right one; 0 where that does not matter.

  It does not where no voxel lies more than half a voxel from its place on straight axes.
  """
  canonical = canonical_grid(grid)
  if _find_shear(canonical) is None:
    return 0.0
  # Off the diagonal: the cosines of the angles between the axes.
  between = np.abs(canonical.directions.T @ canonical.directions - np.eye(3))
  return float(np.degrees(np.arcsin(min(1.0, between.max()))))


def straight_grid(grid: Grid) -> Grid:
  """Returns the grid of canonical, perpendicular axes that holds all voxels of a grid."""
  canonical = canonical_grid(grid)
  shear = _find_shear(canonical)
  return shear.straight if shear else canonical


def straighten_image(image: Volume, name: object = "this scan") -> Volume:
  """Brings an image onto its `straight_grid`; what the slices do not cover becomes air.

  Args:
    image: HU [X, Y, Z] of any type, which is kept.
    name: the scan, for the message.

  Raises:
    UserError: memory cannot hold the straight grid.
  """
  canonical = to_canonical(image)
  shear = _find_shear(canonical.grid)
  if shear is None:
    return canonical
  _require_memory(shear.straight, image.array.itemsize, name)
  # Of a crop without air the lowest value; not a value below that of air, which is padding.
  around = max(float(canonical.array.min()), _AIR_HU)
  return _move_slices(canonical.array, shear.straight, _locate_in_sheared(shear), around)


def straighten_labels(labels: Volume, outside: int = 0, name: object = "this label") -> Volume:
  """Brings a label map onto its `straight_grid`, by whole voxels.

  Args:
    labels: whole numbers [X, Y, Z] of any type, which is kept.
    outside: the value of voxels that the slices do not cover.
    name: the label, for the message.

  Raises:
    UserError: memory cannot hold the straight grid.
  """
  canonical = to_canonical(labels)
  shear = _find_shear(canonical.grid)
  if shear is None:
    return canonical
  _require_memory(shear.straight, labels.array.itemsize, name)
  # X fastest in memory, as in the files that slices come from.
  array = np.full(shear.straight.shape[::-1], outside, labels.array.dtype).T
  for z in range(canonical.shape[2]):
    x, y = _whole_places(shear, canonical.shape, z)
    array[x, y, z] = canonical.array[:, :, z]
  return Volume(array, shear.straight.affine)


def slant_labels(array: np.ndarray, like: Grid) -> Volume:
  """Puts labels on the `straight_grid` of a grid back on that grid; undoes `straighten_labels`.

  Args:
    array: values [X, Y, Z].
    like: the grid to return to, on any axes.

  Raises:
    ValueError: the values do not have the shape of the straight grid.
  """
  canonical = canonical_grid(like)
  shear = _find_shear(canonical)
  if shear is None:
    return from_canonical(array, like)
  _require_shape(array, shear.straight)
  slanted = np.empty(canonical.shape[::-1], array.dtype).T
  for z in range(canonical.shape[2]):
    x, y = _whole_places(shear, canonical.shape, z)
    slanted[:, :, z] = array[x, y, z]
  return from_canonical(slanted, like)


def slant_image(array: np.ndarray, like: Grid) -> Volume:
  """Interpolates values on the `straight_grid` of a grid at the voxels of that grid.

  Arguments and errors as of `slant_labels`; the type is kept, whole numbers are rounded.
  """
  canonical = canonical_grid(like)
  shear = _find_shear(canonical)
  if shear is None:
    return from_canonical(array, like)
  _require_shape(array, shear.straight)
  return from_canonical(
    _move_slices(array, canonical, _locate_in_straight(shear), None).array, like
  )


def _find_shear(canonical: Grid) -> _Shear | None:
  """Returns the shear of a canonical grid; None where its axes are perpendicular."""
  # Of a QR decomposition, Q has the straight axes: X is kept, Y within its plane with X.
  axes, upper = np.linalg.qr(canonical.affine[:3, :3])
  # QR leaves the signs open: with these no axis is turned round.
  signs = np.where(np.diag(upper) < 0, -1.0, 1.0)
  axes, upper = axes * signs, upper * signs[:, None]
  steps = upper / np.diag(upper)[:, None]
  x_by_y, x_by_z, y_by_z = (float(value) for value in (steps[0, 1], steps[0, 2], steps[1, 2]))
  _, ny, nz = (size - 1 for size in canonical.shape)
  along_x, along_y = _find_range(x_by_y * ny, x_by_z * nz), _find_range(y_by_z * nz)
  if max(*map(abs, along_x), *map(abs, along_y)) <= _HARMLESS_VOXELS:
    return None
  # To a thousandth of a voxel, so that the rounding of a header does not add a column.
  low = np.floor(np.round([along_x[0], along_y[0]], 3))
  high = np.ceil(np.round([along_x[1], along_y[1]], 3))
  affine = np.eye(4)
  affine[:3, :3] = axes * np.diag(upper)
  affine[:3, 3] = canonical.affine[:3, 3] + affine[:3, :2] @ low
  x, y = (int(size) for size in canonical.shape[:2] + high - low)
  offset = int(-low[0]), int(-low[1])
  return _Shear(x_by_y, x_by_z, y_by_z, offset, Grid((x, y, canonical.shape[2]), affine))


def _find_range(*moves: float) -> tuple[float, float]:
  """Returns the least and the largest sum of some of the moves."""
  return sum(min(0.0, move) for move in moves), sum(max(0.0, move) for move in moves)


# The matrix [2, 2] and the offset [2] from places (x, y) in a slice to those of its source.
_SlicePlaces = Callable[[int], tuple[np.ndarray, np.ndarray]]


def _locate_in_straight(shear: _Shear) -> _SlicePlaces:
  def find(z: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns matrix and offset of a slice, by the formula of this module."""
    moved = np.array([shear.x_by_z, shear.y_by_z]) * z + shear.offset
    return np.array([[1.0, shear.x_by_y], [0.0, 1.0]]), moved

  return find


def _locate_in_sheared(shear: _Shear) -> _SlicePlaces:
  def find(z: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the inverse of the slice's way to the straight grid."""
    matrix, moved = _locate_in_straight(shear)(z)
    inverse = np.linalg.inv(matrix)
    return inverse, -inverse @ moved

  return find


def _move_slices(
  array: np.ndarray, target: Grid, places: _SlicePlaces, around: float | None
) -> Volume:
  """Interpolates each slice across Z linearly in its plane.

  Args:
    array: values [X, Y, Z].
    target: the grid to move them to.
    places: from places in a slice of the target to those in the values.
    around: the value beyond the slices; None: that of the nearest voxel.
  """
  mode, beyond = ("nearest", 0.0) if around is None else ("constant", around)
  result = np.empty(target.shape[::-1], array.dtype).T
  for z in range(target.shape[2]):
    matrix, moved = places(z)
    # A shear in the plane that is rounding would move the first column beyond the slice's edge.
    slope = np.eye(2) if abs(matrix[0, 1]) * target.shape[1] < 1e-3 else matrix
    # SciPy keeps the type of a slice, and rounds to it where it is of integers.
    result[:, :, z] = ndimage.affine_transform(
      array[:, :, z], slope, moved, target.shape[:2], order=1, mode=mode, cval=beyond
    )
  return Volume(result, target.affine)


def _whole_places(
  shear: _Shear, shape: tuple[int, int, int], z: int
) -> tuple[np.ndarray, np.ndarray]:
  """Returns the places of a slice's voxels on the straight grid: whole x [X, Y] and y [1, Y]."""
  x, y = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
  moved = np.rint(shear.x_by_y * y + shear.x_by_z * z).astype(np.intp)
  return x + moved + shear.offset[0], y + round(shear.y_by_z * z) + shear.offset[1]


def _require_memory(straight: Grid, itemsize: int, name: object) -> None:
  """Refuses a straight grid that memory cannot hold, as that of axes in nearly one plane."""
  memory.require_memory(
    math.prod(straight.shape) * itemsize,
    f"{name}: {' x '.join(map(str, straight.shape))} voxels on perpendicular axes",
    "correct the axes in the file's header",
  )


def _require_shape(array: np.ndarray, grid: Grid) -> None:
  if array.shape != grid.shape:
    raise ValueError(f"values of shape {array.shape} do not fit the straight {grid.shape}")
