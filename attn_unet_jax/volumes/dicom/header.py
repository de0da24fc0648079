"""Reads from a file's header which series it belongs to, and whether it is a CT image.

Only the tags named here are read. None of them identifies a patient: no name, birth date, patient
id, nor free text such as the series description. So nothing of that kind reaches a message or a
log.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pydicom

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.damage import damage_is_user_error
from attn_unet_jax.volumes.dicom.deflated import check_deflated_size
from attn_unet_jax.volumes.dicom.signature import (
  describe_foreign,
  has_dicom_suffix,
  is_bare_dicom,
  is_dicom,
)

# SOP classes (DICOM PS3.4 B.5): CT image, Enhanced CT, and the latter converted from the former.
_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_CT_CLASSES = (_CT_IMAGE, f"{_CT_IMAGE}.1", f"{_CT_IMAGE}.2")
_DICOMDIR = "1.2.840.10008.1.3.10"  # the table of contents that a disc from a clinic has
_STORAGE = "1.2.840.10008.5.1.4.1.1."
# What may share a series with CT slices and be none: captures of a screen, waveforms, presentation
# states, raw data and segmentations, reports, encapsulated documents, plans.
_COMPANIONS = ("7", "9", "11", "66", "88", "104", "481")
_HEADER_TAGS = [
  *("SOPClassUID", "Modality", "ImageType", "StudyInstanceUID", "SeriesInstanceUID"),
  *(
    "FrameOfReferenceUID",
    "SeriesNumber",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SliceThickness",
    "ConvolutionKernel",
  ),
  *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"),
]
NOT_DICOM = "not DICOM"


class SlicePlace(NamedTuple):
  """The place of an image as its tags state it.

  Attributes:
    position: centre of the first pixel in mm: [3].
    axes: the direction of a row, then of a column: [2, 3].
    spacing: distance of rows, then of columns, in mm: [2].
  """

  position: np.ndarray
  axes: np.ndarray
  spacing: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class FileHeader:
  """The header of a file, as far as it is needed.

  Attributes:
    file: its path.
    kind: empty for an image of a CT series, else what it is, in words.
    is_dicom: whether it is DICOM at all.
    is_companion: whether it may lie in a CT series and be no image of it.
    is_ct_class: whether its SOP class, in one of the two places, is that of a CT image.
    series_uid: SeriesInstanceUID; empty if there is none.
    study_uid: StudyInstanceUID; empty if there is none.
    frame_uid: FrameOfReferenceUID; empty if there is none.
    series_number: SeriesNumber; None if there is none.
    size: (columns, rows); zeros where it is no image.
    num_slices: the number of frames; 1 where it is not stated.
    thickness_mm: SliceThickness; None if there is none.
    kernel: ConvolutionKernel; empty if there is none.
    place: its place; None where it is missing, damaged, or given frame by frame.
  """

  file: Path
  kind: str
  is_dicom: bool = False
  is_companion: bool = True
  is_ct_class: bool = False
  series_uid: str = ""
  study_uid: str = ""
  frame_uid: str = ""
  series_number: int | None = None
  size: tuple[int, int] = (0, 0)
  num_slices: int = 1
  thickness_mm: float | None = None
  kernel: str = ""
  place: SlicePlace | None = None


def read_header(file: Path, stream: BinaryIO) -> FileHeader:
  """Reads what a file is.

  Raises:
    UserError: it is DICOM, but cut off before it says what it is, or without its preamble; or its
      name says that it is DICOM.
  """
  if not is_dicom(stream):
    if is_bare_dicom(stream):
      raise UserError(
        f"{file}: DICOM without its preamble of 128 bytes and the letters DICM; add them to every "
        "file of the series (dcmconv IN OUT does)"
      )
    if has_dicom_suffix(file):  # a slice that is lost, and not a text beside them
      raise UserError(
        f"{file}: truncated or damaged, it does not begin as DICOM does ("
        f"{describe_foreign(stream)}); copy or export the file again, or take it out of the folder"
      )
    return FileHeader(file, NOT_DICOM)
  check_deflated_size(file, stream)
  with damage_is_user_error(file):
    tags = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(_HEADER_TAGS))
    classes = tags.get("SOPClassUID"), tags.file_meta.get("MediaStorageSOPClassUID")
    # Some anonymisers remove the SOP class from the data set. The meta information repeats it.
    kind, is_companion = _classify(file, tags, str(classes[0] or classes[1] or ""))
    if kind:
      is_ct_class = any(one in _CT_CLASSES for one in classes)
      return FileHeader(file, kind, True, is_companion, is_ct_class, *_read_uids(tags))
    return _read_image_header(file, tags)


def _classify(file: Path, tags: pydicom.Dataset, sop_class: str) -> tuple[str, bool]:
  """Returns the kind of a file, empty for a CT image, and whether it may lie in a CT series."""
  family = sop_class.removeprefix(_STORAGE).split(".")[0]
  is_companion = sop_class.startswith(_STORAGE) and family in _COMPANIONS
  modality = str(tags.get("Modality") or "")
  if sop_class == _DICOMDIR:
    return "DICOMDIR", True
  if not modality and not is_companion:
    raise UserError(f"{file}: truncated or damaged, it has no Modality; copy or export it again")
  if modality != "CT":
    return f"of {_describe_modality(modality)}", is_companion
  # The scout view, which shares the series' UID with some scanners (DICOM PS3.3 C.8.2.1.1.1).
  if "LOCALIZER" in (tags.get("ImageType") or ()):
    return "localizer", True
  if sop_class and sop_class not in _CT_CLASSES:
    return "CT capture or report", is_companion
  return "", False


def _read_image_header(file: Path, tags: pydicom.Dataset) -> FileHeader:
  if not (tags.get("Rows") and tags.get("Columns")):
    raise UserError(f"{file}: truncated or damaged, it has no Rows; copy or export it again")
  number, thickness = tags.get("SeriesNumber"), tags.get("SliceThickness")
  kernel = tags.get("ConvolutionKernel") or ""
  return FileHeader(
    file,
    kind="",
    is_dicom=True,
    is_companion=False,
    is_ct_class=True,
    series_uid=_read_uids(tags)[0],
    study_uid=_read_uids(tags)[1],
    frame_uid=str(tags.get("FrameOfReferenceUID") or ""),
    series_number=None if number is None else int(number),
    size=(int(tags.Columns), int(tags.Rows)),
    num_slices=int(tags.get("NumberOfFrames") or 1),
    thickness_mm=None if thickness is None else float(thickness),
    kernel=kernel if isinstance(kernel, str) else "/".join(kernel),
    place=_read_place(tags),
  )


def _read_uids(tags: pydicom.Dataset) -> tuple[str, str]:
  """Reads the UIDs of series and study; empty where there are none."""
  series, study = tags.get("SeriesInstanceUID"), tags.get("StudyInstanceUID")
  return str(series or ""), str(study or "")


def _read_place(tags: pydicom.Dataset) -> SlicePlace | None:
  names = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
  try:
    position, axes, spacing = (
      np.array(tags.get(name), np.float64).reshape(shape)
      for name, shape in zip(names, ((3,), (2, 3), (2,)), strict=True)
    )
  except (TypeError, ValueError):
    return None  # of no use here; the reader of the series says what is wrong
  return SlicePlace(position, axes, spacing)


def _describe_modality(modality: str) -> str:
  """Names a modality; a text that is no term of DICOM may be anything, so it is not shown."""
  if modality.replace("_", "").isalnum() and modality.isascii() and len(modality) <= 16:
    return f"modality {modality}"
  return "an unknown modality" if modality else "no modality"
