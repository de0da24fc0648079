"""Reads a CT series from a folder or a .zip with DICOM as a volume in HU.

It reads CT images with one slice in a file or all slices in one (multi-frame, "Enhanced"), stored
uncompressed, deflated, as RLE, JPEG (lossless, or lossy with 8 bits), JPEG-LS or JPEG 2000. Slices
are ordered by position, never by file name or InstanceNumber, and the tags of slice thickness and
distance are not trusted. Pixels that the scanner marked as padding (PixelPaddingValue, up to
PixelPaddingRangeLimit) become air, -1000 HU. Slices that form no regular grid are refused.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pydicom
from pydicom.pixels import get_decoder
from pydicom.uid import JPEGExtended12Bit

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.files import open_files
from attn_unet_jax.volumes.dicom.frames import FRAME_TAGS, is_multi_frame, split_frames
from attn_unet_jax.volumes.dicom.geometry import SliceGeometry, arrange_slices
from attn_unet_jax.volumes.dicom.series import (
  DicomSeries,
  choose_series,
  damage_is_user_error,
  find_series,
  survey_files,
)
from attn_unet_jax.volumes.volume import Volume

__all__ = [
  "AIR_HU",
  "DicomSeries",
  "DicomVolume",
  "find_series",
  "read_dicom",
  "read_series",
  "survey_files",
]

AIR_HU = -1000
# Padding within this range, such as 0 HU, does not mark anything: tissue has that value as well.
_TISSUE_HU = (-900, 1000)
# Only these are read, so that no name or other text of the patient is ever in memory.
_GEOMETRY_TAGS = [
  *("Rows", "Columns", "InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient"),
  *("PixelSpacing", "SliceThickness", "SpacingBetweenSlices", *FRAME_TAGS),
]
_PIXEL_TAGS = [
  *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
  *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData", *FRAME_TAGS),
  *("RescaleSlope", "RescaleIntercept", "PixelPaddingValue", "PixelPaddingRangeLimit"),
]


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


def read_dicom(path: Path, *, series_uid: str | None = None) -> DicomVolume:
  """Reads the CT series that lies at any depth of a folder, or in a .zip.

  Args:
    path: the folder or .zip.
    series_uid: the SeriesInstanceUID to read if there are several series.

  Raises:
    UserError: there is no series, or several and none is chosen; or the reasons of `read_series`.
  """
  return read_series(choose_series(Path(path), series_uid))


def read_series(series: DicomSeries) -> DicomVolume:
  """Reads one CT series.

  Raises:
    UserError: its slices form no regular grid (see `arrange_slices`), or a file is damaged or
      stored in a way that is not read.
  """
  # Twice over the files: only when all places are known, it is known where each slice's pixels go,
  # and all pixels need not be in memory twice.
  slices, affine = arrange_slices(
    [one for file, stream in open_files(series.files) for one in _read_slices(file, stream)]
  )
  tags = [one.tag_spacing_mm for one in slices if one.tag_spacing_mm is not None]
  return DicomVolume(
    Volume(_read_voxels(slices), affine),
    tuple(one.instance_number for one in slices),
    float(np.median(tags)) if tags else None,
  )


def _read_slices(file: Path, stream: BinaryIO) -> list[SliceGeometry]:
  """Reads the place of a file's slice, or of each of its frames."""
  with damage_is_user_error(file):
    tags = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(_GEOMETRY_TAGS))
    parts = split_frames(tags)
    several = is_multi_frame(tags)
    return [
      _read_slice_geometry(file, part, k if several else None) for k, part in enumerate(parts)
    ]


def _read_slice_geometry(file: Path, tags: pydicom.Dataset, frame: int | None) -> SliceGeometry:
  # PixelSpacing gives the distance between rows first (DICOM PS3.3 10.7.1.3).
  between_rows, between_columns = _read_vector(tags, "PixelSpacing", 2, file)
  if min(between_rows, between_columns) <= 0:
    raise UserError(f"{file}: PixelSpacing must be above 0 mm; export the file again")
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
  if vector.shape != (size,) or not np.isfinite(vector).all():
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


def _read_voxels(slices: Sequence[SliceGeometry]) -> np.ndarray:
  """Reads the values in HU, [columns, rows, slices], each slice in one piece of memory."""
  array = np.empty((*slices[0].size, len(slices)), np.int16, order="F")
  places: dict[Path, list[int]] = {}
  for k, one in enumerate(slices):
    places.setdefault(one.file, []).append(k)
  # File by file and not slice by slice: a multi-frame file holds many of them.
  for file, stream in open_files(places):
    tags, frames = _read_stored_frames(file, stream)
    for k in places[file]:
      part, stored = frames[slices[k].frame or 0]
      hu = _to_hounsfield(file, tags, part, stored)
      info = np.iinfo(np.int16)
      # Starting with int16 halves the memory of nearly every scan.
      if hu.dtype.kind == "f" or hu.min() < info.min or hu.max() > info.max:
        array = array.astype(np.float32, copy=False)
      array[:, :, k] = hu.T
  return array


def _read_stored_frames(
  file: Path, stream: BinaryIO
) -> tuple[pydicom.Dataset, list[tuple[pydicom.Dataset, np.ndarray]]]:
  """Reads a file's tags, and the tags and the stored pixels [rows, columns] of every frame."""
  with damage_is_user_error(file):
    tags = pydicom.dcmread(stream, specific_tags=list(_PIXEL_TAGS))
    _check_encoding(file, tags)
    parts = split_frames(tags)
  with damage_is_user_error(file, "its pixels are truncated or damaged"):
    pixels = tags.pixel_array.reshape(-1, int(tags.Rows), int(tags.Columns))
    return tags, list(zip(parts, pixels, strict=True))


def _to_hounsfield(
  file: Path, tags: pydicom.Dataset, part: pydicom.Dataset, stored: np.ndarray
) -> np.ndarray:
  """Converts a slice to HU: int32, or float32 if slope or intercept are fractions.

  Args:
    file: the file, for the message.
    tags: the file's tags.
    part: the frame's own tags.
    stored: the pixels as stored [rows, columns].
  """
  with damage_is_user_error(file):
    slope, intercept = float(part.get("RescaleSlope", 1)), float(part.get("RescaleIntercept", 0))
    if slope == 0 or not np.isfinite([slope, intercept]).all():
      raise UserError(f"{file}: slope {slope}, intercept {intercept} give no HU; export it again")
    whole = slope.is_integer() and intercept.is_integer()
    # float64 holds every product of a 16-bit pixel and a whole slope exactly.
    hu = stored * np.float64(slope) + np.float64(intercept)
    hu = hu.astype(np.int32 if whole else np.float32)
    hu[_padding_mask(file, tags, stored, slope, intercept)] = AIR_HU
    return hu


def _check_encoding(file: Path, tags: pydicom.Dataset) -> None:
  """Refuses a file whose pixels are missing, are no grey slice, or cannot be decoded."""
  syntax = tags.file_meta.TransferSyntaxUID
  if "PixelData" not in tags:
    raise UserError(f"{file}: truncated or damaged, it has no pixels; copy or export it again")
  undescribed = int(tags.get("NumberOfFrames") or 1) != 1 and not is_multi_frame(tags)
  if tags.get("SamplesPerPixel", 1) != 1 or undescribed:
    raise UserError(
      f"{file}: holds colours, or several frames without a place of their own; a CT slice is one "
      "grey image: convert it to one file for each slice, or to NIfTI"
    )
  try:
    readable = get_decoder(syntax).is_available
  except NotImplementedError:  # pydicom knows the syntax and has no decoder for it at all
    readable = False
  # pydicom says that it can decode lossy JPEG of 12 bits, but none of its decoders does.
  if not readable or (syntax == JPEGExtended12Bit and int(tags.get("BitsStored", 16)) > 8):
    raise UserError(
      f"{file}: stored as {syntax.name}, which is not read here; decompress it first "
      "(dcmdjpeg, gdcmconv --raw)"
    )


def _padding_mask(
  file: Path, tags: pydicom.Dataset, stored: np.ndarray, slope: float, intercept: float
) -> np.ndarray:
  """Returns a mask [rows, columns] of the pixels that the scanner never measured."""
  # Both tags are in stored values, before slope and intercept (DICOM PS3.3 C.7.5.1.1.2). The limit
  # may lie on either side of the value.
  value = tags.get("PixelPaddingValue")
  if value is None:
    return np.zeros(stored.shape, bool)
  limit = tags.get("PixelPaddingRangeLimit")
  low, high = sorted((int(value), int(value if limit is None else limit)))
  hu_low, hu_high = sorted((low * slope + intercept, high * slope + intercept))
  if hu_low < _TISSUE_HU[1] and hu_high > _TISSUE_HU[0]:
    logging.info("%s: padding of %g..%g HU may be tissue, left as it is", file, hu_low, hu_high)
    return np.zeros(stored.shape, bool)
  return (stored >= low) & (stored <= high)
