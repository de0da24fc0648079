"""Measures how far the surfaces of two masks are apart, in mm, by two conventions.

By area: the surface of a mask runs between voxel centres. Every cube of 2x2x2 centres that is
neither all inside nor all outside contains a piece of it, the polygons of marching cubes (Lorensen
and Cline 1987; vertices halfway along the cube's edges). A piece is weighted by its area and lies
at the cube's centre: without areas, slanted surfaces would weigh more than flat ones, and thin
slices more than thick ones. It is the convention of Nikolov et al. 2018 and of their package
`surface-distance`.

By voxels: the voxels at the border of each mask, all with one weight, as most papers do.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.spatial import KDTree

from attn_unet_jax.volumes.box import bounding_slices

Corner = tuple[int, int, int]

_CORNERS: list[Corner] = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
_SLAB = 8  # planes that are looked at in one step: they stay in the processor's cache
_LEAF = 64  # places of a tree's leaf: fewer take longer to find, more to look through


class SurfaceElements(NamedTuple):
  """The elements of a mask's surface: pieces, or border voxels.

  Attributes:
    places: in voxels [P, 3], with a constant offset that is the same for every mask.
    weight: areas in mm^2, or ones [P].
  """

  places: np.ndarray
  weight: np.ndarray


class DirectedDistances(NamedTuple):
  """The distances from the elements of one surface to another, from the shortest to the longest.

  Attributes:
    mm: to the nearest element of the other surface [P]; infinite where that one is empty.
    weight: of the elements [P].
  """

  mm: np.ndarray
  weight: np.ndarray


class SurfaceDistances(NamedTuple):
  """The distances from the prediction's surface to the reference's, and back."""

  there: DirectedDistances
  back: DirectedDistances


def measure_by_area(
  prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]
) -> SurfaceDistances:
  """Measures distances between the pieces of two surfaces, weighted by their areas.

  Args:
    prediction: mask, bool [X, Y, Z].
    reference: mask of the same grid.
    spacing_mm: distance of voxel centres along each axis.

  Raises:
    ValueError: the masks have different shapes.
  """
  return _measure_distances(_list_pieces, prediction, reference, spacing_mm)


def measure_by_voxels(
  prediction: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]
) -> SurfaceDistances:
  """Measures distances between the border voxels of two masks, all with one weight.

  A border voxel is one of the mask with one of its six neighbours outside, as in MedPy. A voxel at
  the border of the scan is one too. Arguments and errors are those of `measure_by_area`.
  """
  return _measure_distances(_list_border_voxels, prediction, reference, spacing_mm)


ListElements = Callable[[np.ndarray, tuple[float, float, float]], SurfaceElements]


def _measure_distances(
  list_elements: ListElements,
  prediction: np.ndarray,
  reference: np.ndarray,
  spacing_mm: Sequence[float],
) -> SurfaceDistances:
  if prediction.shape != reference.shape:
    raise ValueError(f"prediction {prediction.shape} and reference {reference.shape} differ")
  x, y, z = map(float, spacing_mm)
  # Scans are stored with X fastest; planes of their last axis are read in one piece.
  if prediction.flags.f_contiguous:
    prediction, reference, (x, y, z) = prediction.T, reference.T, (z, y, x)
  a, b = (list_elements(mask, (x, y, z)) for mask in (prediction, reference))
  spacing = np.array([x, y, z])
  return SurfaceDistances(_measure_directed(a, b, spacing), _measure_directed(b, a, spacing))


def _measure_directed(
  elements: SurfaceElements, others: SurfaceElements, spacing: np.ndarray
) -> DirectedDistances:
  if not (len(elements.places) and len(others.places)):
    return DirectedDistances(np.full(len(elements.places), np.inf), elements.weight)
  # A tree, not a distance transform of the grid: its cost is that of the surfaces alone. Balancing
  # it takes longer than it saves.
  tree = KDTree(others.places * spacing, _LEAF, balanced_tree=False, compact_nodes=False)
  nearest = tree.query(elements.places * spacing)[1]
  # From whole steps, not from places in mm: their rounding would depend on where the organ lies,
  # and decide whether a distance of 2 mm is within 2 mm.
  x, y, z = ((elements.places - others.places[nearest]) * spacing).T
  mm = np.sqrt(x * x + y * y + z * z)
  order = np.lexsort((elements.weight, mm))
  return DirectedDistances(mm[order], elements.weight[order])


def _list_pieces(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> SurfaceElements:
  """Lists the pieces of a mask's surface, with areas in mm^2."""
  found, codes = [np.zeros((0, 3), np.int64)], [np.zeros(0, np.uint8)]
  for low, slab in _cut_slabs(mask, 1):
    # Each cube's eight corners make a code of a bit each, from 0 (all outside) to 255 (all inside);
    # in the order of `_CORNERS`, whose last axis runs fastest.
    edges = slab[:, :, :-1] | slab[:, :, 1:] << 1
    faces = edges[:, :-1] | edges[:, 1:] << 2
    cubes = faces[:-1] | faces[1:] << 4
    # 255 wraps to 0, so that both codes without a surface are at most 1.
    at = np.flatnonzero(cubes + np.uint8(1) > 1)
    found.append(np.stack(np.unravel_index(at, cubes.shape), axis=1) + low)
    codes.append(cubes.ravel()[at])
  return SurfaceElements(np.concatenate(found), _measure_areas(spacing_mm)[np.concatenate(codes)])


def _list_border_voxels(
  mask: np.ndarray, spacing_mm: tuple[float, float, float]
) -> SurfaceElements:
  """Lists the border voxels of a mask, with weights of one."""
  found = [np.zeros((0, 3), np.int64)]
  for low, slab in _cut_slabs(mask, 2):
    own = slab[1:-1, 1:-1, 1:-1]
    inner = own & slab[2:, 1:-1, 1:-1] & slab[:-2, 1:-1, 1:-1]
    inner &= slab[1:-1, 2:, 1:-1] & slab[1:-1, :-2, 1:-1]
    inner &= slab[1:-1, 1:-1, 2:] & slab[1:-1, 1:-1, :-2]
    at = np.flatnonzero(own > inner)
    found.append(np.stack(np.unravel_index(at, own.shape), axis=1) + low)
  places = np.concatenate(found)
  return SurfaceElements(places, np.ones(len(places)))


def _cut_slabs(mask: np.ndarray, overlap: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Cuts a mask into slabs of planes, and leaves out those in which it is empty.

  Yields the first index of each slab [3], and its planes, 0 and 1: `overlap` of them are the first
  of the next slab too. There is a voxel of 0 on every side of the mask.
  """
  # An organ fills a small part of a scan: the cost is then that of its own box.
  where = bounding_slices(mask)
  if where is None:
    return
  low = np.array([side.start for side in where])
  padded = np.pad(mask[where], 1).view(np.uint8)  # a surface is closed at the scan's border too
  for first in range(0, len(padded) - overlap, _SLAB):
    slab = padded[first : first + _SLAB + overlap]
    if slab.any():
      yield low + [first, 0, 0], slab


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
