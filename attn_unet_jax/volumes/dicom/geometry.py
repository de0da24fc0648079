"""Arranges slices on one regular grid, or says why they form none.

Only ImagePositionPatient, ImageOrientationPatient and PixelSpacing are trusted. The standard
requires them in every CT slice, and scanners compute them. Slices are ordered by their position
along the normal, and the distance between slices is that of the positions.
"""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.shear import MAX_TILT_DEGREES

# Positions are often written to 0.1 mm, so equal gaps seem unequal by as much.
_TOLERANCE_MM = 0.1
# Thinner slices do not exist: two at one place are a copy, or another point in time.
_SAME_PLACE_MM = 0.01
# Of direction cosines: half a millimetre at the edge of a field of view of 500 mm.
_TOLERANCE_COSINE = 1e-3
# Of the pixel spacing: 0.05 mm over 512 pixels.
_TOLERANCE_PIXEL_MM = 1e-4
_MAX_NAMED = 3  # in a message: examples are enough to find the others
# DICOM's x points to the patient's left and y to the back; RAS+ has the opposite of both.
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0])


@dataclasses.dataclass(frozen=True, eq=False)
class SliceGeometry:
  """The place of one slice, as its file states it.

  Attributes:
    file: its path.
    instance_number: InstanceNumber; 0 if there is none.
    size: (columns, rows).
    position: centre of the first pixel in mm, LPS: [3].
    directions: unit vectors along a row, then along a column, LPS: [2, 3].
    spacing: distance of neighbouring columns, then of neighbouring rows, in mm: [2].
    tag_spacing_mm: distance between slices that the tags claim; None if they claim nothing.
    frame: index in a multi-frame file; None in a file of one slice.
  """

  file: Path
  instance_number: int
  size: tuple[int, int]
  position: np.ndarray
  directions: np.ndarray
  spacing: np.ndarray
  tag_spacing_mm: float | None
  frame: int | None = None

  @property
  def name(self) -> str:
    """The file's name, with the number of the frame in a multi-frame file."""
    return name_slice(self.file.name, self.frame)

  @property
  def normal(self) -> np.ndarray:
    """The unit vector across the slice, LPS: [3]."""
    return np.cross(*self.directions)

  @property
  def along_mm(self) -> float:
    """The position along the slice's own normal in mm."""
    return float(self.position @ self.normal)


def name_slice(file: str, frame: int | None) -> str:
  """Returns a file's name with the number of the frame from 1; of a single slice the name alone."""
  return file if frame is None else f"{file} frame {frame + 1}"


def arrange_slices(slices: Sequence[SliceGeometry]) -> tuple[list[SliceGeometry], np.ndarray]:
  """Puts the slices of one series in order.

  Args:
    slices: the slices, in any order.

  Returns:
    the slices by increasing position along their normal, and the affine 4x4 from the index
    (column, row, slice) to mm in RAS+.

  Raises:
    UserError: they form no regular grid: there are fewer than two, sizes or orientations differ,
      several lie at one place, slices are missing, gaps are unequal, or some lie sideways of the
      others. Slices of a tilted gantry form a sheared grid, and are not refused.
  """
  where = os.path.commonpath([one.file.parent for one in slices])
  if len(slices) < 2:
    raise UserError(f"{slices[0].file}: a single slice, a scan needs two; add the others")
  mixed = [
    *_describe_outliers("size (columns, rows)", [one.size for one in slices], slices, 0),
    *_describe_outliers(
      "pixel spacing in mm", [one.spacing for one in slices], slices, _TOLERANCE_PIXEL_MM
    ),
    *_describe_outliers(
      "orientation", [one.directions for one in slices], slices, _TOLERANCE_COSINE
    ),
  ]
  if mixed:
    raise UserError(f"{where}: {'; '.join(mixed)}; leave only the slices of one stack")
  # By position, since InstanceNumber may run either way and start again within a series. One normal
  # for all, since the cosines of each slice are rounded on their own.
  slices = sorted(slices, key=lambda one: float(one.position @ slices[0].normal))
  if problems := [*_describe_gaps(slices), *_describe_jumps(slices)]:
    raise UserError(f"{where}: {'; '.join(problems)}")
  return slices, _stack_affine(slices)


def _stack_affine(slices: Sequence[SliceGeometry]) -> np.ndarray:
  """Returns the affine 4x4 of a sorted stack (DICOM PS3.3 C.7.6.2.1.1)."""
  first, last = slices[0], slices[-1]
  lps = np.column_stack(
    [*(first.directions * first.spacing[:, None]), (last.position - first.position)]
  )
  # From the first position to the last, so that the rounding of positions does not add up.
  lps[:, 2] /= len(slices) - 1
  affine = np.eye(4)
  affine[:3, :3] = _LPS_TO_RAS @ lps
  affine[:3, 3] = _LPS_TO_RAS @ first.position
  return affine


def _describe_outliers(
  what: str, values: Sequence[Any], slices: Sequence[SliceGeometry], tolerance: float
) -> list[str]:
  """Describes the slices in which a value differs from that of most others."""
  table = np.array(values, np.float64).reshape(len(slices), -1)
  common = collections.Counter(map(tuple, table.round(3).tolist())).most_common(1)[0][0]
  # `common` is rounded, to count nearly equal rows as one. `usual` is one of those rows as it is.
  usual = table[np.abs(table - common).max(axis=1).argmin()]
  odd = np.flatnonzero(np.abs(table - usual).max(axis=1) > tolerance)
  if not odd.size:
    return []
  shown = f"{_format_numbers(table[odd[0]])} in {_format_names([slices[i] for i in odd.tolist()])}"
  return [
    f"{odd.size} of {len(slices)} slices differ in {what}: {shown}, "
    f"{_format_numbers(usual)} in most"
  ]


def _format_numbers(values: np.ndarray) -> str:
  return "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _format_names(slices: Sequence[SliceGeometry]) -> str:
  more = ", ..." if len(slices) > _MAX_NAMED else ""
  return ", ".join(one.name for one in slices[:_MAX_NAMED]) + more


def _describe_jumps(slices: Sequence[SliceGeometry]) -> list[str]:
  """Describes slices that lie sideways of where the tilt of a gantry would have them."""
  steps = np.array([one.position for one in slices]) - slices[0].position
  normal = slices[0].normal
  along = steps @ normal
  sideways = steps - along[:, None] * normal
  if not along[-1]:
    return []  # all are copies of one another, which is said already
  angle = float(np.degrees(np.arctan2(np.linalg.norm(sideways[-1]), along[-1])))
  if angle > MAX_TILT_DEGREES:
    return [
      f"slices are stacked at {angle:.1f} degrees to their normal, further than a gantry tilts "
      "(30): ImageOrientationPatient or ImagePositionPatient is damaged; export the series again"
    ]
  # A tilt moves each slice in proportion to its place along the normal, up to the last one.
  jumps = np.linalg.norm(sideways - np.outer(along / along[-1], sideways[-1]), axis=1)
  # Half a pixel: below it every voxel still is the one that the grid would have there.
  if jumps.max() <= slices[0].spacing.min() / 2:
    return []
  worst = int(jumps.argmax())
  return [
    f"{slices[worst].name} lies {jumps[worst]:.1f} mm sideways of the line from {slices[0].name} "
    f"to {slices[-1].name}: the table moved, or several scans share the series; give one scan"
  ]


def _describe_gaps(slices: Sequence[SliceGeometry]) -> list[str]:
  """Describes duplicates, missing slices and unequal gaps along the normal."""
  along = np.array([one.position for one in slices]) @ slices[0].normal
  gaps = np.diff(along)
  same = np.flatnonzero(gaps <= _SAME_PLACE_MM)
  problems = [_describe_duplicates(slices, same, along)] if same.size else []
  places = np.delete(along, same + 1)
  # Compared with even places and not gap by gap: errors of rounding do not add up, those of a
  # drifting table do.
  even = np.linspace(places[0], places[-1], len(places))
  if len(places) > 1 and np.abs(places - even).max() > _TOLERANCE_MM:
    problems.append(_describe_uneven_gaps(slices, gaps))
  return problems


def _describe_duplicates(
  slices: Sequence[SliceGeometry], same: np.ndarray, along: np.ndarray
) -> str:
  shown = ", ".join(
    f"{slices[k].file} and {slices[k + 1].name} at {along[k]:g} mm" for k in same[:_MAX_NAMED]
  )
  more = ", ..." if same.size > _MAX_NAMED else ""
  return (
    f"{same.size} duplicate slices, at the place of another: {shown}{more}; remove the copies, or "
    "split a series of several time points"
  )


def _describe_uneven_gaps(slices: Sequence[SliceGeometry], gaps: np.ndarray) -> str:
  # The median is the true distance even if many slices are missing.
  usual = float(np.median(gaps[gaps > _SAME_PLACE_MM]))
  wide = np.flatnonzero((gaps > _SAME_PLACE_MM) & (np.abs(gaps - usual) > _TOLERANCE_MM))
  if not wide.size:
    return f"gaps drift between {gaps.min():g} and {gaps.max():g} mm, they must be equal"
  shown = ", ".join(
    f"{gaps[k]:.3f} mm between {slices[k].name} ({slices[k].along_mm:g} mm) and "
    f"{slices[k + 1].name} ({slices[k + 1].along_mm:g} mm)"
    for k in wide[:_MAX_NAMED]
  )
  shown += f" and {wide.size - _MAX_NAMED} more" if wide.size > _MAX_NAMED else ""
  # A gap of twice the usual distance lacks one slice, and so on. Any other gap is a change of the
  # distance, as where two scans share a series.
  multiples = np.rint(gaps[wide] / usual)
  if (np.abs(gaps[wide] - multiples * usual) <= _TOLERANCE_MM).all() and (multiples > 1).all():
    missing = int((multiples - 1).sum())
    return (
      f"{missing} missing slices: gaps of {shown}, elsewhere {usual:.3f} mm; "
      "export or download the series again, complete"
    )
  return (
    f"unequal gaps: {shown}, mostly {usual:.3f} mm; a grid needs equal ones: slices are missing, "
    "or several scans share the series: give one scan, complete, or reconstruct it evenly"
  )
