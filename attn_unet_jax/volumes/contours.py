"""Traces the borders of a mask as polygons along the edges of its voxels.

A polygon encloses the area of its voxels exactly, and no centre of a voxel lies within half a voxel
of it. So whatever rule a program fills polygons by, it finds the voxels of the mask again.

A hole is joined to its outer border by a channel of no width (the keyhole of DICOM PS3.3
C.8.8.6.3), which runs between the centres of voxels too.
"""

from __future__ import annotations

import numpy as np

_NUM_DIRECTIONS = (
  4  # of a border, each a quarter turn to the left of the one before: +i, +j, -i, -j
)


def trace_contours(mask: np.ndarray) -> list[np.ndarray]:
  """Traces the borders of a mask.

  Voxels that touch at a corner alone belong to different polygons. A hole is cut into the polygon
  around it, so that every polygon stands for itself.

  Args:
    mask: bool [I, J].

  Returns:
    closed polygons [N, 2] of positions (i, j) in voxels, without the first repeated at the end; the
    voxel (0, 0) reaches from -0.5 to 0.5. They are ordered by their smallest corner.
  """
  padded = np.pad(np.asarray(mask, bool), 1)
  width = padded.shape[1] + 1  # of the lattice of corners: corner (a, b) has the number a width + b
  loops = _trace_loops(_find_edges(padded), width)
  holes = [loop for loop in loops if _is_hole(loop, width)]
  polygons = [loop for loop in loops if not _is_hole(loop, width)]
  if holes:
    polygons = _cut_holes(polygons, holes)
  # Corner (1, 1) of the padded mask is the outer corner of the voxel (0, 0).
  return [_keep_turns(np.stack(np.divmod(loop, width), axis=1)) - 1.5 for loop in polygons]


def _find_edges(padded: np.ndarray) -> bytearray:
  """Returns for each corner the directions of the borders that leave it, as bits.

  A border runs along the edge between a voxel of the mask, on its left, and another.
  """
  inside, corners = padded, np.zeros(np.add(padded.shape, 1), np.uint8)
  below, above = np.pad(inside[:, :-1], ((0, 0), (1, 0))), np.pad(inside[:, 1:], ((0, 0), (0, 1)))
  before, after = np.pad(inside[:-1], ((1, 0), (0, 0))), np.pad(inside[1:], ((0, 1), (0, 0)))
  corners[:-1, :-1] |= (inside & ~below).astype(np.uint8)
  corners[1:, :-1] |= (inside & ~after).astype(np.uint8) << 1
  corners[1:, 1:] |= (inside & ~above).astype(np.uint8) << 2
  corners[:-1, 1:] |= (inside & ~before).astype(np.uint8) << 3
  return bytearray(corners.tobytes())


def _trace_loops(edges: bytearray, width: int) -> list[list[int]]:
  """Follows the borders until each is closed; each begins at its smallest corner."""
  steps = (width, 1, -width, -1)
  starts = np.flatnonzero(np.frombuffer(bytes(edges), np.uint8)).tolist()
  loops = []
  for start in starts:
    while edges[start]:
      first = direction = _lowest_direction(edges[start])
      loop, corner = [], start
      while True:
        edges[corner] &= ~(1 << direction)
        loop.append(corner)
        corner += steps[direction]
        # Two borders leave a corner where two voxels of the mask touch by it alone. The left turn
        # stays with the voxel whose border this is.
        left = (direction + 1) % _NUM_DIRECTIONS
        if corner == start and (left == first or not edges[corner]):
          break
        direction = left if edges[corner] >> left & 1 else _lowest_direction(edges[corner])
      loops.append(loop)
  return loops


def _lowest_direction(bits: int) -> int:
  return (bits & -bits).bit_length() - 1


def _is_hole(loop: list[int], width: int) -> bool:
  """Returns whether a border runs clockwise: the mask, on its left, lies outside."""
  # At its smallest corner a loop turns: outer borders leave it by +i, those of holes by +j.
  return loop[1] - loop[0] != width


def _cut_holes(polygons: list[list[int]], holes: list[list[int]]) -> list[list[int]]:
  """Joins every hole to the polygon around it by a channel that is walked to and fro."""
  # Parts of the mask lie around the smallest corner of a hole. From there the channel runs by -j
  # through the mask, until it meets a border of that part: its outer border, or another hole, which
  # has a smaller corner and so has been joined before.
  owner = {corner: number for number, loop in enumerate(polygons) for corner in loop}
  polygons = list(polygons)
  for hole in sorted(holes):
    start = contact = hole[0]
    while contact not in owner:
      contact -= 1
    number = owner[contact]
    channel = list(range(contact + 1, start))
    loop = polygons[number]
    place = loop.index(contact)
    polygons[number] = [
      *(*loop[: place + 1], *channel),
      *(*hole, start),
      *(*reversed(channel), *loop[place:]),
    ]
    owner |= dict.fromkeys(hole, number)
  return polygons


def _keep_turns(corners: np.ndarray) -> np.ndarray:
  """Drops the corners [N, 2] at which a closed polygon goes straight on."""
  steps = np.roll(corners, -1, axis=0) - corners
  is_turn = (steps != np.roll(steps, 1, axis=0)).any(axis=1)
  turns: np.ndarray = corners[is_turn]
  return turns
