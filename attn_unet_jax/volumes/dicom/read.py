"""DICOM in: a folder or a .zip with a CT series becomes a volume in HU.

Read are CT images, a slice a file or all in one (multi-frame, "Enhanced"), uncompressed, deflated,
RLE, JPEG (lossless, or lossy of 8 bits), JPEG-LS and JPEG 2000. Slices are ordered by position,
never by file name or InstanceNumber; the tags of slice thickness and distance are not trusted.
Pixels that the scanner marked as padding (PixelPaddingValue, to PixelPaddingRangeLimit) become air,
-1000 HU. What does not form one regular grid is refused.
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
# Padding that would be soft tissue, such as 0 HU, is no mark: tissue has that value as well.
_TISSUE_HU = (-900, 1000)
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
  """A CT series as a volume.

  Attributes:
    volume: HU [i, j, k] with i along rows (the column index), j along columns (the row index)
      and k by increasing position along the slice normal; int16 where values are whole numbers
      in its range, else float32; the affine leads to RAS+.
    instance_numbers: the InstanceNumber of every k; 0 where a slice has none.
    tag_spacing_mm: the distance of slices that the tags claim (SpacingBetweenSlices, else
      SliceThickness; None without both). It may be wrong: `volume.spacing` is that of positions.
  """

  volume: Volume
  instance_numbers: tuple[int, ...]
  tag_spacing_mm: float | None


def read_dicom(path: Path, *, series_uid: str | None = None) -> DicomVolume:
  """Reads the CT series of a folder, however deep, or of a .zip.

  Args:
    path: the folder or .zip.
    series_uid: the SeriesInstanceUID to read, where there are several.

  Raises:
    UserError: there is none, or several and no choice; or as `read_series`.
  """
  return read_series(choose_series(Path(path), series_uid))


def read_series(series: DicomSeries) -> DicomVolume:
  """Reads one CT series.

  Raises:
    UserError: its slices form no regular grid (`arranged` says of what kinds), or a file is
      damaged or in a form that is not read.
  """
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
  """What a file says of the place of its slice, or of each of its frames."""
  with damage_is_user_error(file):
    tags = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(_GEOMETRY_TAGS))
    parts = split_frames(tags)
    several = is_multi_frame(tags)
    return [
      _read_slice_geometry(file, part, k if several else None) for k, part in enumerate(parts)
    ]


def _read_slice_geometry(file: Path, tags: pydicom.Dataset, frame: int | None) -> SliceGeometry:
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
  value = tags.get(name)
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
  return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _read_tag_spacing(tags: pydicom.Dataset) -> float | None:
  for name in ("SpacingBetweenSlices", "SliceThickness"):
    if tags.get(name) is not None:
      return abs(float(tags[name].value))
  return None


def _read_voxels(slices: Sequence[SliceGeometry]) -> np.ndarray:
  """HU [columns, rows, slices]; each slice lies in one piece of memory."""
  array = np.empty((*slices[0].size, len(slices)), np.int16, order="F")
  places: dict[Path, list[int]] = {}
  for k, one in enumerate(slices):
    places.setdefault(one.file, []).append(k)
  for file, stream in open_files(places):
    tags, frames = _read_stored_frames(file, stream)
    for k in places[file]:
      part, stored = frames[slices[k].frame or 0]
      hu = _to_hounsfield(file, tags, part, stored)
      info = np.iinfo(np.int16)
      if hu.dtype.kind == "f" or hu.min() < info.min or hu.max() > info.max:
        array = array.astype(np.float32, copy=False)
      array[:, :, k] = hu.T
  return array


def _read_stored_frames(
  file: Path, stream: BinaryIO
) -> tuple[pydicom.Dataset, list[tuple[pydicom.Dataset, np.ndarray]]]:
  """A file's tags; of every frame its own tags and its pixels as stored [rows, columns]."""
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
  """One slice in HU [rows, columns], int32, or float32 where slope or intercept are fractions."""
  with damage_is_user_error(file):
    slope, intercept = float(part.get("RescaleSlope", 1)), float(part.get("RescaleIntercept", 0))
    if slope == 0 or not np.isfinite([slope, intercept]).all():
      raise UserError(f"{file}: slope {slope}, intercept {intercept} give no HU; export it again")
    whole = slope.is_integer() and intercept.is_integer()
    hu = stored * np.float64(slope) + np.float64(intercept)
    hu = hu.astype(np.int32 if whole else np.float32)
    hu[_padding_mask(file, tags, stored, slope, intercept)] = AIR_HU
    return hu


def _check_encoding(file: Path, tags: pydicom.Dataset) -> None:
  syntax = tags.file_meta.TransferSyntaxUID
  if "PixelData" not in tags:
    raise UserError(f"{file}: truncated or damaged, it has no pixels; copy or export it again")
  undescribed = int(tags.get("NumberOfFrames") or 1) != 1 and not is_multi_frame(tags)
  if tags.get("SamplesPerPixel", 1) != 1 or undescribed:
    raise UserError(
      f"{file}: holds colours, or several frames without a place of their own; a CT slice is one "
      "grey image: convert it to one slice a file or to NIfTI"
    )
  try:
    readable = get_decoder(syntax).is_available
  except NotImplementedError:
    readable = False
  # No decoder that pydicom trusts reads lossy JPEG of 12 bits, which it claims to.
  if not readable or (syntax == JPEGExtended12Bit and int(tags.get("BitsStored", 16)) > 8):
    raise UserError(
      f"{file}: stored as {syntax.name}, which is not read here; decompress it first "
      "(dcmdjpeg, gdcmconv --raw)"
    )


def _padding_mask(
  file: Path, tags: pydicom.Dataset, stored: np.ndarray, slope: float, intercept: float
) -> np.ndarray:
  """Which pixels the scanner never measured: a mask [rows, columns]."""
  value = tags.get("PixelPaddingValue")
  if value is None:
    return np.zeros(stored.shape, bool)
  limit = tags.get("PixelPaddingRangeLimit")
  low, high = sorted((int(value), int(value if limit is None else limit)))
  hu_low, hu_high = sorted((low * slope + intercept, high * slope + intercept))
  if hu_low < _TISSUE_HU[1] and hu_high > _TISSUE_HU[0]:
    logging.info("%s: padding of %g..%g HU is tissue too, left as it is", file, hu_low, hu_high)
    return np.zeros(stored.shape, bool)
  return (stored >= low) & (stored <= high)
