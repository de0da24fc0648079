"""Reads a CT series from a folder or a .zip with DICOM as a volume in HU.

It reads CT images with one slice in a file or all slices in one (multi-frame, "Enhanced"), stored
uncompressed, deflated, as RLE, JPEG (lossless, or lossy with 8 bits), JPEG-LS or JPEG 2000. Slices
are ordered by position, never by file name or InstanceNumber, and the tags of slice thickness and
distance are not trusted. Pixels that the scanner marked as padding (PixelPaddingValue, up to
PixelPaddingRangeLimit) become air, -1000 HU. Slices that form no regular grid are refused.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom

from attn_unet_jax.runtime.acceptance import NOTHING, Acceptance
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.damage import damage_is_user_error
from attn_unet_jax.volumes.dicom.files import open_files
from attn_unet_jax.volumes.dicom.frames import FRAME_TAGS, is_multi_frame, split_frames
from attn_unet_jax.volumes.dicom.geometry import SliceGeometry, arrange_slices
from attn_unet_jax.volumes.dicom.rescale import (
  RESCALE_TAGS,
  SliceRescale,
  check_rescales,
  read_rescale,
)
from attn_unet_jax.volumes.dicom.series import (
  DicomSeries,
  choose_series,
  find_series,
  survey_files,
)
from attn_unet_jax.volumes.dicom.voxels import AIR_HU, check_pixel_size, read_voxels
from attn_unet_jax.volumes.volume import Volume, round_spacing

__all__ = [
  "AIR_HU",
  "DicomSeries",
  "DicomVolume",
  "find_series",
  "locate_slices",
  "read_dicom",
  "read_series",
  "survey_files",
]

# Only these are read, so that no name or other text of the patient is ever in memory.
_PLACE_TAGS = [
  *("Rows", "Columns", "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient"),
  *("PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "BitsAllocated"),
  *(*FRAME_TAGS, *RESCALE_TAGS),
]

_FARTHEST_MM = 1e8  # no scanner places a slice a hundred kilometres away


@dataclasses.dataclass(frozen=True, eq=False)
class DicomVolume:
  """A volume that was read from a CT series, with what its tags claim.

  Attributes:
    volume: HU [i, j, k], where i is the column index (along rows), j the row index (along columns)
      and k counts slices by increasing position along their normal. It is int16 if all values are
      whole numbers in its range, else float32. The affine leads to RAS+.
    instance_numbers: the InstanceNumber of every k; 0 for a slice without one.
    tag_spacing_mm: the distance between slices that the tags claim (SpacingBetweenSlices, else
      SliceThickness; None without both). It may be wrong; `volume.spacing` comes from positions.
  """

  volume: Volume
  instance_numbers: tuple[int, ...]
  tag_spacing_mm: float | None


def read_dicom(
  path: Path, *, series_uid: str | None = None, accept: Acceptance = NOTHING
) -> DicomVolume:
  """Reads the CT series that lies at any depth of a folder, or in a .zip.

  Args:
    path: the folder or .zip.
    series_uid: the SeriesInstanceUID to read if there are several series.
    accept: doubts about the unit that the user accepts, see `check_rescales`.

  Raises:
    UserError: there is no series, or several and none is chosen; or the reasons of `read_series`.
  """
  return read_series(choose_series(survey_files(Path(path)), series_uid), accept)


def read_series(series: DicomSeries, accept: Acceptance = NOTHING) -> DicomVolume:
  """Reads one CT series.

  Args:
    series: the series.
    accept: doubts about the unit that the user accepts, see `check_rescales`.

  Raises:
    UserError: its slices form no regular grid (see `arrange_slices`), their unit is not HU (see
      `check_rescales`), or a file is damaged or stored in a way that is not read.
  """
  # Twice over the files: only when all places are known, it is known where each slice's pixels go,
  # and all pixels need not be in memory twice.
  found = _read_all_slices(series)
  slices, affine = arrange_slices([place for place, _ in found])
  where = Path(os.path.commonpath([file.parent for file in series.files]))
  check_rescales(where, [rescale for _, rescale in found], accept)
  tags = [one.tag_spacing_mm for one in slices if one.tag_spacing_mm is not None]
  return DicomVolume(
    Volume(read_voxels(slices), affine),
    tuple(one.instance_number for one in slices),
    float(np.median(tags)) if tags else None,
  )


def locate_slices(series: DicomSeries) -> list[SliceGeometry]:
  """Returns the places of a series' slices, in the order that `read_series` gives them.

  Raises:
    UserError: they form no regular grid, or a file is damaged.
  """
  return arrange_slices([place for place, _ in _read_all_slices(series)])[0]


def _read_all_slices(series: DicomSeries) -> list[tuple[SliceGeometry, SliceRescale]]:
  return [one for file, stream in open_files(series.files) for one in _read_slices(file, stream)]


def _read_slices(file: Path, stream: BinaryIO) -> list[tuple[SliceGeometry, SliceRescale]]:
  """Reads the place and the unit of a file's slice, or of each of its frames."""
  with damage_is_user_error(file):
    tags = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(_PLACE_TAGS))
    check_pixel_size(file, stream, tags)
    frames = split_frames(tags)
    numbers: Sequence[int | None] = range(len(frames)) if is_multi_frame(tags) else [None]
    return [
      (_read_slice_geometry(file, frame, k), read_rescale(file, k, frame))
      for k, frame in zip(numbers, frames, strict=True)
    ]


def _read_slice_geometry(file: Path, tags: pydicom.Dataset, frame: int | None) -> SliceGeometry:
  # PixelSpacing gives the distance between rows first (DICOM PS3.3 10.7.1.3).
  between_rows, between_columns = _read_vector(tags, "PixelSpacing", 2, file)
  if not (round_spacing(np.array([between_rows, between_columns])) > 0).all():
    raise UserError(f"{file}: PixelSpacing must be at least 1e-4 mm; export the file again")
  return SliceGeometry(
    file,
    int(tags.get("InstanceNumber") or 0),
    (int(tags.Columns), int(tags.Rows)),
    _read_vector(tags, "ImagePositionPatient", 3, file),
    _unit_directions(_read_vector(tags, "ImageOrientationPatient", 6, file), file),
    np.array([between_columns, between_rows]),
    _read_tag_spacing(tags),
    frame,
  )


def _read_vector(tags: pydicom.Dataset, name: str, size: int, file: Path) -> np.ndarray:
  value = tags.get(name)  # None also where the element is there and empty
  vector = np.array([] if value is None else value, np.float64)
  # NaN fails the comparison too.
  if vector.shape != (size,) or not (np.abs(vector) < _FARTHEST_MM).all():
    raise UserError(
      f"{file}: {name} must be {size} numbers in a CT slice, it is missing or damaged; without it "
      "the slice has no place: export the series again, or leave the file out"
    )
  return vector


def _unit_directions(cosines: np.ndarray, file: Path) -> np.ndarray:
  directions = cosines.reshape(2, 3)
  if not np.allclose(directions @ directions.T, np.eye(2), atol=1e-3):
    raise UserError(
      f"{file}: ImageOrientationPatient {cosines.tolist()} is not two perpendicular unit vectors; "
      "export the series again"
    )
  # Cosines are often written with six digits. The spacing is to come from PixelSpacing alone.
  unit: np.ndarray = directions / np.linalg.norm(directions, axis=1, keepdims=True)
  return unit


def _read_tag_spacing(tags: pydicom.Dataset) -> float | None:
  # SliceThickness is how thick a slice was reconstructed. Slices often overlap; then their distance
  # is smaller. Some scanners write a negative SpacingBetweenSlices.
  for name in ("SpacingBetweenSlices", "SliceThickness"):
    if tags.get(name) is not None:
      return abs(float(tags[name].value))
  return None
