"""Cuts slices out of volumes on canonical axes and draws them in true proportions."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from attn_unet_jax.drawing.colours import choose_colour
from attn_unet_jax.drawing.options import SliceStyle
from attn_unet_jax.volumes.volume import Volume

# By the canonical axis that they are perpendicular to.
PLANES = ("sagittal", "coronal", "axial")
SAGITTAL, CORONAL, AXIAL = range(3)

_UNLABELLED = 255  # as `labels.UNLABELLED`: no class
Region = tuple[slice, slice, slice]


class Place(NamedTuple):
  """A slice of a volume.

  Attributes:
    axis: the canonical axis that it is perpendicular to.
    number: of the slice along that axis, from 0.
  """

  axis: int
  number: int


def cut_plane(array: np.ndarray, place: Place) -> np.ndarray:
  """Cuts a slice as a radiologist sees it: the front or the head up, the right side at the left.

  Args:
    array: values [X, Y, Z] on canonical axes.
    place: the slice.

  Returns:
    values [rows, columns]; in a sagittal slice the front is at the left.
  """
  # Canonical axes lead to the right, the front and the head, rows of a picture down.
  plane: np.ndarray = np.take(array, place.number, place.axis)[::-1, ::-1].T
  return plane


def find_centre(mask: np.ndarray) -> tuple[int, int, int]:
  """Returns the voxel next to the centre of mass of a mask; the middle of an empty one."""
  if not mask.any():
    x, y, z = (size // 2 for size in mask.shape)
    return x, y, z
  # Within its box, as sums over a whole scan take seconds.
  region = find_region(mask, (1.0, 1.0, 1.0), 0.0)
  centre = []
  for axis, part in enumerate(region):
    others = tuple(other for other in range(3) if other != axis)
    along = np.count_nonzero(mask[region], axis=others)
    centre.append(part.start + round(float(np.average(np.arange(len(along)), weights=along))))
  x, y, z = centre
  return x, y, z


def find_largest_slices(mask: np.ndarray, count: int) -> list[int]:
  """Returns the axial slices with most of a mask, from the head down, and not all side by side.

  A slice next to the largest looks like it, so that chosen slices are a sixth of the mask's height
  apart. An empty mask has none.
  """
  areas = np.count_nonzero(mask, axis=(0, 1))
  filled = np.flatnonzero(areas)
  apart = max(1, (filled[-1] - filled[0]) // 6) if len(filled) else 1
  chosen: list[int] = []
  for index in sorted(filled.tolist(), key=lambda index: (-areas[index], index)):
    if len(chosen) < count and all(abs(index - other) >= apart for other in chosen):
      chosen.append(index)
  return sorted(chosen, reverse=True)


def find_region(mask: np.ndarray, spacing: Sequence[float], margin_mm: float) -> Region:
  """Returns the box around a mask with a margin, cut at the volume; all of it for an empty one."""
  bounds = []
  for axis in range(3):
    others = tuple(other for other in range(3) if other != axis)
    filled = np.flatnonzero(mask.any(axis=others))
    margin = round(margin_mm / spacing[axis])
    low, high = (filled[0] - margin, filled[-1] + 1 + margin) if len(filled) else (0, None)
    # An end beyond the volume is cut by NumPy, a negative start would count from the other end.
    bounds.append(slice(max(0, int(low)), None if high is None else int(high)))
  return bounds[0], bounds[1], bounds[2]


def find_outline(mask: np.ndarray, width: int) -> np.ndarray:
  """Returns the pixels of a mask [rows, columns] that are at most `width` from its outside."""
  inner = mask
  for _ in range(width):
    # With nothing around the picture, a mask that reaches its edge is closed there.
    padded = np.pad(inner, 1)
    inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
  outline: np.ndarray = mask & ~inner
  return outline


def draw_slice(
  image: Volume | None,
  classes: np.ndarray | None,
  spacing: Sequence[float],
  place: Place,
  box: tuple[int, int],
  style: SliceStyle,
) -> np.ndarray:
  """Draws a slice in grey with the outline of every class in its colour.

  Args:
    image: HU on canonical axes; None is black.
    classes: class indices [X, Y, Z] on the image's grid; None has no outlines.
    spacing: of the voxels along (X, Y, Z), mm.
    place: the slice.
    box: the largest height and width in pixels; the slice fills one of them, and its proportions
      are those of its millimetres.
    style: window and outline.

  Returns:
    RGB uint8 [height, width, 3].
  """
  values = image.array if image is not None else classes
  assert values is not None
  # Of the two other axes the later one runs down the picture, as `cut_plane` transposes.
  columns, rows = (axis for axis in range(3) if axis != place.axis)
  size = fit_size(
    (values.shape[rows] * spacing[rows], values.shape[columns] * spacing[columns]), box
  )
  if image is None:
    picture = np.zeros((*size, 3), np.uint8)
  else:
    grey = to_grey(cut_plane(image.array, place), style.window_hu)
    picture = np.repeat(_resize_linear(grey, size).astype(np.uint8)[..., None], 3, axis=-1)
  if classes is not None:
    # Enlarged first, outlined then: the line has one width at every size.
    enlarged = _resize_nearest(cut_plane(classes, place), size)
    for value in np.unique(enlarged).tolist():
      if value not in (0, _UNLABELLED):
        picture[find_outline(enlarged == value, style.outline_px)] = choose_colour(value)
  return picture


def to_grey(hu: np.ndarray, window_hu: tuple[float, float]) -> np.ndarray:
  """Maps a window of HU to 0..255, float32; what is no number is black."""
  low, high = window_hu
  grey = (np.nan_to_num(hu.astype(np.float32), nan=low) - low) * (255 / (high - low))
  clipped: np.ndarray = np.clip(grey, 0, 255)
  return clipped


def fit_size(extent_mm: tuple[float, float], box: tuple[int, int]) -> tuple[int, int]:
  """Returns the height and width in pixels of an extent that is fitted into a box."""
  scale = min(pixels / mm for pixels, mm in zip(box, extent_mm, strict=True))
  height, width = (max(1, round(mm * scale)) for mm in extent_mm)
  return height, width


def _resize_nearest(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  rows, columns = (
    # The old pixel below the centre of each new one: corners would shift the mask half a pixel.
    ((np.arange(new) + 0.5) * (old / new)).astype(int)
    for new, old in zip(size, plane.shape, strict=True)
  )
  return plane[np.ix_(rows, columns)]


def _resize_linear(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  for axis, new in enumerate(size):
    old = plane.shape[axis]
    # Centres on centres, as the mask's. Beyond the outer centres the value of the edge holds.
    at = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
    # The last centre is reached from the one before it; a plane of one pixel has none.
    below = np.minimum(at.astype(int), max(0, old - 2))
    share = (at - below).astype(np.float32)
    share = share[:, None] if axis == 0 else share
    above = np.minimum(below + 1, old - 1)
    plane = np.take(plane, below, axis) * (1 - share) + np.take(plane, above, axis) * share
  return plane
