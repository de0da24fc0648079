"""Measures the distance between the surfaces of two masks, in mm, by two conventions.

`assd_mm` weights by surface area. `assd_voxels_mm` takes the voxels at the border of each mask, all
with one weight, as most papers do.

By area: the surface of a mask runs between voxel centres. Every cube of 2x2x2 centres that is
neither all inside nor all outside contains a piece of it, the polygons of marching cubes (Lorensen
and Cline 1987; vertices halfway along the cube's edges). A piece is weighted by its area and lies
at the cube's centre: without areas, slanted surfaces would weigh more than flat ones, and thin
slices more than thick ones.
"""

import itertools
import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from attn_unet_jax.volumes.box import bounding_slices

Corner = tuple[int, int, int]

_CORNERS: list[Corner] = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]


def assd_mm(prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]) -> float:
  """Returns the average symmetric surface distance: the mean of the two directed averages.

  Args:
    prediction: mask, bool [X, Y, Z].
    reference: mask of the same grid.
    spacing_mm: distance of voxel centres along each axis.

  Returns:
    the distance in mm; NaN if a mask is empty.

  Raises:
    ValueError: the masks have different shapes.
  """
  return sum(measure_directed_averages_mm(prediction, reference, spacing_mm)) / 2


def measure_directed_averages_mm(
  prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]
) -> tuple[float, float]:
  """Measures the mean distance from the prediction's surface to the reference's, and back.

    sum over pieces of (area x distance to the nearest piece of the other) / sum of areas

  Arguments and errors are those of `assd_mm`; each result is in mm, NaN if a mask is empty.
  """
  if prediction.shape != reference.shape:
    raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} differ")
  points, areas = zip(*(_list_surface(m, spacing_mm) for m in (prediction, reference)), strict=True)
  if not (len(points[0]) and len(points[1])):
    return math.nan, math.nan
  # A tree, not a distance transform of the grid: the pieces lie between the voxels' centres.
  there, back = KDTree(points[1]).query(points[0])[0], KDTree(points[0]).query(points[1])[0]
  return float(np.average(there, weights=areas[0])), float(np.average(back, weights=areas[1]))


def assd_voxels_mm(
  prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]
) -> float:
  """Returns the average symmetric surface distance between border voxels.

    mean of (mean distance of a border voxel to the nearest of the other mask) there and back

  A border voxel is one of the mask with one of its six neighbours outside, as in MedPy. A voxel at
  the border of the scan is one too. Arguments, result and errors are those of `assd_mm`.
  """
  if prediction.shape != reference.shape:
    raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} differ")
  a, b = (_list_border_voxels(mask, spacing_mm) for mask in (prediction, reference))
  if not (len(a) and len(b)):
    return math.nan
  there, back = KDTree(b).query(a)[0], KDTree(a).query(b)[0]
  return float(there.mean() + back.mean()) / 2


def _list_border_voxels(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
  """Lists the centres [P, 3] in mm of a mask's border voxels."""
  low, inside = _crop_to_masks(mask)
  if not inside.size:
    return np.zeros((0, 3))
  border = inside & ~ndimage.binary_erosion(inside)
  points: np.ndarray = (np.argwhere(border) + low) * np.asarray(spacing_mm, np.float64)
  return points


def _list_surface(mask: np.ndarray, spacing_mm: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
  """Lists the centres [P, 3] in mm and the areas [P] in mm^2 of the pieces of a mask's surface."""
  low, inside = _crop_to_masks(mask)
  padded = np.pad(inside, 1).astype(np.uint8)  # the surface is closed at the scan's border too
  shape = np.array(padded.shape) - 1
  # Each cube's eight corners make a code of a bit each, from 0 (all outside) to 255 (all inside).
  codes = np.zeros(shape, np.uint8)
  for bit, corner in enumerate(_CORNERS):
    codes |= padded[tuple(map(slice, corner, shape + corner))] << bit
  index = np.argwhere((codes != 0) & (codes != 255))
  areas = _measure_areas(tuple(map(float, spacing_mm)))[codes[tuple(index.T)]]
  return (index + low) * np.asarray(spacing_mm, np.float64), areas


def _crop_to_masks(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Crops a mask to its bounding box; returns the first index on each axis, and the crop."""
  # An organ fills a small part of a scan: the cost is then that of its own box.
  where = bounding_slices(mask) or (slice(0, 0),) * 3
  return np.array([side.start for side in where]), mask[where]


@lru_cache(maxsize=64)
def _measure_areas(spacing_mm: tuple[float, float, float]) -> np.ndarray:
  """Measures the area in mm^2 of the piece in a cube for each of the 256 codes of its corners."""
  # Cached, since both masks and all cases of one spacing share these areas.
  return np.array([_measure_area(code, spacing_mm) for code in range(256)])


def _measure_area(code: int, spacing_mm: tuple[float, float, float]) -> float:
  """Measures the area in mm^2 of the polygons that separate a cube's corners inside and outside."""
  # Inside and outside have the same polygons between them; those of at most four corners are known.
  inside = [c for bit, c in enumerate(_CORNERS) if code >> bit & 1]
  outside = [c for c in _CORNERS if c not in inside]
  fewer = min(inside, outside, key=len)
  return sum(_cut_off(corners, spacing_mm) for corners in _join_edges(fewer))


def _cut_off(corners: list[Corner], spacing_mm: tuple[float, float, float]) -> float:
  """Cuts one to four connected corners off a cube; returns the area of the polygon in mm^2.

  It is made of triangles that cut one corner off, halves of the rectangles that cut an edge off,
  and halves of a section of the cube: all with known areas.
  """
  x, y, z = spacing_mm
  # Edges are cut in the middle. So a corner is cut off by a triangle of area |(yz, xz, xy)| / 8,
  # and an edge along Z by a rectangle of area z |(x, y)| / 2.
  faces = np.array([y * z, x * z, x * y])  # area of the cube's section across each axis
  corner = float(np.linalg.norm(faces)) / 8
  half_edge = [float(np.linalg.norm(np.delete(faces, axis))) / 4 for axis in range(3)]
  # Corners that edges connect have few shapes up to rotation; the cases below are all of them.
  extent = np.ptp(corners, axis=0)
  if len(corners) == 1:
    return corner
  if len(corners) == 2:
    return 2 * half_edge[int(np.argmax(extent))]
  if not extent.all():  # in one face of the cube: a corner less than it, or all of it
    flat = float(faces[np.argmin(extent)])
    return 3 * corner + flat / 2 if len(corners) == 3 else flat
  ends = [c for c in corners if sum(_are_neighbours(c, other) for other in corners) == 1]
  if len(ends) == 3:  # a corner and its three neighbours: a hexagon
    return 6 * corner
  # A path along all three axes.
  outer = [_axis_positions(end, c) for end in ends for c in corners if _are_neighbours(end, c)]
  return 4 * corner + sum(half_edge[axis] for axis in outer)


def _join_edges(corners: list[Corner]) -> list[list[Corner]]:
  """Joins corners that edges of the cube connect into groups."""
  # Corners of one cube that no edge connects are cut off apart, each with a polygon of its own.
  groups: list[list[Corner]] = []
  for corner in corners:
    joined = [g for g in groups if any(_are_neighbours(corner, other) for other in g)]
    groups = [g for g in groups if g not in joined]
    groups.append([corner, *itertools.chain(*joined)])
  return groups


def _are_neighbours(a: Corner, b: Corner) -> bool:
  return sum(i != j for i, j in zip(a, b, strict=True)) == 1


def _axis_positions(a: Corner, b: Corner) -> int:
  """Returns the axis along which two neighbours differ."""
  return [i != j for i, j in zip(a, b, strict=True)].index(True)
