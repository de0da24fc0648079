"""Decides what the stored values of CT slices mean in Hounsfield units, or why that is unknown.

A CT image must state RescaleSlope and RescaleIntercept (DICOM PS3.3 C.8.2.1). HU is stored value *
slope + intercept, unless RescaleType names another unit (C.11.1.1.2). `US`, "unspecified", says
nothing: GDCM, and with it ITK and its relatives, writes it into every image. It counts like a
RescaleType that is not there. Both terms also occur written out.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom

from attn_unet_jax.runtime.acceptance import NOTHING, Acceptance, refuse_unless_accepted
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.geometry import name_slice

RESCALE_TAGS = ("RescaleSlope", "RescaleIntercept", "RescaleType", "ModalityLUTSequence")
_HOUNSFIELD_TYPES = ("", "HU", "US", "HOUNSFIELD", "UNSPECIFIED")
# Far above metal at the end of an extended scale (about 30,000) and below what float32 counts by
# ones. Such a value is a damaged slope or intercept.
_MAX_HU = 1e6
_MAX_NAMED = 3  # in a message: examples are enough to find the others


@dataclasses.dataclass(frozen=True)
class SliceRescale:
  """The unit of one slice, or of one frame, as its file states it.

  Attributes:
    file: its path.
    frame: index in a multi-frame file; None in a file of one slice.
    slope: HU for each stored unit; None if it is not stated.
    intercept: HU of the stored value 0; None if it is not stated.
    unit: RescaleType in upper case; empty if it is not stated.
    has_table: whether ModalityLUTSequence replaces slope and intercept.
    is_contrary: whether two places in the file give different numbers.
  """

  file: Path
  frame: int | None
  slope: float | None
  intercept: float | None
  unit: str = ""
  has_table: bool = False
  is_contrary: bool = False

  @property
  def name(self) -> str:
    """The file's name, with the number of the frame in a multi-frame file."""
    return name_slice(self.file.name, self.frame)

  @property
  def missing_tags(self) -> tuple[str, ...]:
    """The tags of slope and intercept that are not stated."""
    stated = {"RescaleSlope": self.slope, "RescaleIntercept": self.intercept}
    return tuple(name for name, value in stated.items() if value is None)

  def to_hounsfield(self, stored: np.ndarray) -> np.ndarray:
    """Converts stored values to HU, float64; slope 1 and intercept 0 replace what is missing."""
    # float64 holds every product of a 32-bit pixel and a whole slope exactly, so nothing wraps.
    hu: np.ndarray = stored * np.float64(1 if self.slope is None else self.slope)
    hu += 0 if self.intercept is None else self.intercept
    return hu


def read_rescale(file: Path, frame: int | None, tags: pydicom.Dataset) -> SliceRescale:
  """Reads what a slice, or a frame of `split_frames`, says about its unit.

  Raises:
    ValueError: a number is damaged.
  """
  # Of a frame: every place that gives it slope and intercept. Of a slice there is one.
  places = list(tags.get("PixelValueTransformationSequence") or [tags])
  scales = [
    (_read_number(one, "RescaleSlope"), _read_number(one, "RescaleIntercept")) for one in places
  ]
  stated = [scale for scale in scales if scale != (None, None)] or [(None, None)]
  units = [str(one.get("RescaleType") or "").strip().upper() for one in places]
  return SliceRescale(
    file,
    frame,
    *stated[0],
    # Of several places one that names another unit counts: it is a doubt about all of them.
    unit=next((unit for unit in units if unit not in _HOUNSFIELD_TYPES), units[0]),
    has_table=any(one.get("ModalityLUTSequence") for one in places),
    is_contrary=len(set(stated)) > 1,
  )


def check_rescales(
  where: Path, slices: Sequence[SliceRescale], accept: Acceptance = NOTHING
) -> None:
  """Refuses a series whose values are not known to be Hounsfield units.

  Slope and intercept may differ from slice to slice, as long as every slice states its own.

  Args:
    where: the series, for the message.
    slices: what every slice says.
    accept: with `rescale` in it, a series without slope or intercept counts as HU where they are
      1 and 0, and so does one of another unit.

  Raises:
    UserError: slices lack slope or intercept, contradict themselves or each other, give a table
      instead, or are in another unit.
  """
  _refuse_unreadable(where, slices)
  if len({one.missing_tags for one in slices}) > 1:
    odd = _find_rare(slices)
    raise UserError(
      f"{where}: {_format_names(odd, slices)} without {' and '.join(odd[0].missing_tags)}, which "
      "the others have, so its unit is unknown; export the series again, complete"
      if odd[0].missing_tags
      else f"{where}: only {_format_names(odd, slices)} with RescaleSlope and RescaleIntercept, so "
      "the unit of the others is unknown; export the series again, complete"
    )
  if problem := _describe_unknown_unit(where, slices):
    print_line(refuse_unless_accepted("rescale", problem, accept))


def to_stored_type(hu: np.ndarray, rescale: SliceRescale) -> np.ndarray:
  """Returns values as int16 if all are whole and in its range, else as float32.

  Args:
    hu: float64.
    rescale: where they come from, for the message and to know whether they are whole.

  Raises:
    UserError: a value is far from what any substance has.
  """
  low, high = float(hu.min()), float(hu.max())
  if not max(abs(low), abs(high)) <= _MAX_HU:
    place = name_slice(str(rescale.file), rescale.frame)
    raise UserError(
      f"{place}: slope {rescale.slope}, intercept {rescale.intercept} give values from {low:g} to "
      f"{high:g} HU, which nothing has; export the series again"
    )
  whole = all(float(part or 0).is_integer() for part in (rescale.slope, rescale.intercept))
  info = np.iinfo(np.int16)
  # int16 halves the memory of nearly every scan.
  return hu.astype(np.int16 if whole and low >= info.min and high <= info.max else np.float32)


def _refuse_unreadable(where: Path, slices: Sequence[SliceRescale]) -> None:
  """Refuses what no user can accept: it would be HU in no way of reading it."""
  for one in slices:
    numbers = [part for part in (one.slope, one.intercept) if part is not None]
    if one.slope == 0 or not np.isfinite(numbers).all():
      place = name_slice(str(one.file), one.frame)
      raise UserError(
        f"{place}: slope {one.slope}, intercept {one.intercept} give no HU; export it again"
      )
  if tables := [one for one in slices if one.has_table]:
    raise UserError(
      f"{where}: {_format_names(tables, slices)} with a table for the unit (ModalityLUTSequence), "
      "which a CT image must not have and which is not read; export the series with RescaleSlope "
      "and RescaleIntercept"
    )
  if contrary := [one for one in slices if one.is_contrary]:
    raise UserError(
      f"{where}: {_format_names(contrary, slices)} with two different RescaleSlope or "
      "RescaleIntercept in one file, so its unit is unknown; export the series again"
    )


def _describe_unknown_unit(where: Path, slices: Sequence[SliceRescale]) -> str:
  """Describes a doubt that the user may know better about; '' if there is none."""
  if missing := slices[0].missing_tags:
    return (
      f"{where}: no slice has {' and '.join(missing)}, which a CT image must have, so it is not "
      "known whether its stored values are Hounsfield units; export the series again"
    )
  if foreign := [one for one in slices if one.unit not in _HOUNSFIELD_TYPES]:
    return (
      f"{where}: {_format_names(foreign, slices)} with the unit {_quote(foreign[0].unit)} "
      "(RescaleType) and not HU; give the series in Hounsfield units"
    )
  return ""


def _read_number(tags: pydicom.Dataset, name: str) -> float | None:
  value = tags.get(name)  # None also where the element is there and empty
  return None if value is None or value == "" else float(value)


def _find_rare(slices: Sequence[SliceRescale]) -> list[SliceRescale]:
  """Returns the slices that state least often what they do."""
  counts = collections.Counter(one.missing_tags for one in slices)
  # Where both are equally many, those that lack something are named.
  rare = min(counts, key=lambda missing: (counts[missing], not missing))
  return [one for one in slices if one.missing_tags == rare]


def _format_names(some: Sequence[SliceRescale], of_all: Sequence[SliceRescale]) -> str:
  more = ", ..." if len(some) > _MAX_NAMED else ""
  names = ", ".join(one.name for one in some[:_MAX_NAMED]) + more
  return f"{len(some)} of {len(of_all)} slices ({names})"


def _quote(text: str) -> str:
  """Shows a term of DICOM; a longer or odd text may be anything, so it is not shown."""
  return text if text.replace("_", "").isalnum() and len(text) <= 16 else "of an unknown name"
