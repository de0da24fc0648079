"""Reads what a DICOM file that is made from a CT series says about that series.

Such a file belongs to the patient and to the study of the slices and refers to every one of them,
so here, and nowhere else, who the patient is is read. It goes from file to file and into no
message.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pydicom
from pydicom.config import RAISE
from pydicom.uid import generate_uid
from pydicom.valuerep import validate_value

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.damage import damage_is_user_error
from attn_unet_jax.volumes.dicom.equipment import skip_value_checks
from attn_unet_jax.volumes.dicom.files import open_files
from attn_unet_jax.volumes.dicom.geometry import SliceGeometry
from attn_unet_jax.volumes.dicom.read import locate_slices
from attn_unet_jax.volumes.dicom.series import DicomSeries

# Of the modules Patient and General Study. The standard demands the first ones, if only empty.
_REQUIRED_TAGS = (
  *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
  *("StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"),
)
_OPTIONAL_TAGS = ("IssuerOfPatientID", "StudyDescription")
_UID_TAGS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_IMAGE_TAGS = ("SOPClassUID", "SOPInstanceUID")
_SEXES = ("M", "F", "O")
_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
# Far from the numbers that scanners give to the series of a study.
_SERIES_NUMBER_STEP = 1000


class SourceSlice(NamedTuple):
  """A slice to refer to.

  Attributes:
    place: its place.
    sop_class: the SOPClassUID of its file.
    sop_instance: the SOPInstanceUID of its file.
  """

  place: SliceGeometry
  sop_class: str
  sop_instance: str


@dataclasses.dataclass(frozen=True, eq=False)
class SourceSeries:
  """A CT series to refer to.

  Attributes:
    common: patient, study, and the UIDs of series and frame of reference; all text in UTF-8.
    slices: the slices, in the order of `read_series`.
    missing: the UIDs that the slices have lost, by name; `common` has new ones in their place.
  """

  common: pydicom.Dataset
  slices: tuple[SourceSlice, ...]
  missing: tuple[str, ...]

  @property
  def size(self) -> tuple[int, int, int]:
    """The number of columns, rows and slices."""
    return (*self.slices[0].place.size, len(self.slices))

  @property
  def folder(self) -> Path:
    """The folder of the first slice, for messages."""
    return self.slices[0].place.file.parent


def read_source(series: DicomSeries) -> SourceSeries:
  """Reads what a mask of a CT series has to say about it.

  Slices may have lost the UIDs of study, series or frame of reference. Then new ones are computed
  from those of the slices, so that all masks of one series have the same.

  Raises:
    UserError: a slice has no SOPInstanceUID, two have the same, or the reasons of `locate_slices`.
  """
  places = locate_slices(series)
  first, uids = places[0].file, {}
  for file, stream in open_files(series.files):
    with damage_is_user_error(file):
      uids[file] = _read_image_uids(file, stream)
  if len({instance for _, instance in uids.values()}) < len(uids):
    raise UserError(
      f"{first.parent}: several slices share a SOPInstanceUID, so a mask in DICOM could not say "
      "which one it means; export the series again, or write the mask as NIfTI"
    )
  # Sorted, so that new UIDs do not depend on the order of the files.
  entropy = sorted(instance for _, instance in uids.values())
  for file, stream in open_files([first]):
    with damage_is_user_error(file):
      common, missing = _read_common(stream, entropy)
  slices = tuple(SourceSlice(place, *uids[place.file]) for place in places)
  return SourceSeries(common, slices, missing)


def _read_image_uids(file: Path, stream: BinaryIO) -> tuple[str, str]:
  """Reads the UIDs of class and instance of a file.

  Some anonymisers empty them in the data set. The meta information repeats them.
  """
  tags = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(_IMAGE_TAGS))
  meta = tags.file_meta
  instance = str(tags.get("SOPInstanceUID") or meta.get("MediaStorageSOPInstanceUID") or "")
  if not instance:
    raise UserError(
      f"{file}: has no SOPInstanceUID, by which a mask in DICOM names its slices; export the "
      "series again, or write the mask as NIfTI"
    )
  sop_class = tags.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or _CT_IMAGE
  return str(sop_class), instance


def _read_common(
  stream: BinaryIO, entropy: Sequence[str]
) -> tuple[pydicom.Dataset, tuple[str, ...]]:
  """Reads what all slices share; names the UIDs that are new."""
  names = [*_REQUIRED_TAGS, *_OPTIONAL_TAGS, *_UID_TAGS, "SeriesNumber", "SpecificCharacterSet"]
  tags = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=names)
  common = pydicom.Dataset()
  # UTF-8, which holds every text, whatever character set the slices have.
  common.SpecificCharacterSet = "ISO_IR 192"
  for name in (*_REQUIRED_TAGS, *_OPTIONAL_TAGS):
    text = _read_valid(tags, name)
    if text or name in _REQUIRED_TAGS:
      setattr(common, name, text)
  missing = []
  for name in _UID_TAGS:
    uid = str(tags.get(name) or "")
    if not uid:
      missing.append(name)
      uid = generate_uid(entropy_srcs=[name, *entropy])
    with skip_value_checks():
      setattr(common, name, uid)
  common.SeriesNumber = max(0, int(tags.get("SeriesNumber") or 0)) + _SERIES_NUMBER_STEP
  return common, tuple(missing)


def _read_valid(tags: pydicom.Dataset, name: str) -> str:
  """Reads a text; empty where it is missing, or is none that DICOM allows there."""
  # A text with a backslash in it is several values, which none of these tags may have.
  if not tags.get(name) or tags[name].VM != 1:
    return ""
  text = str(tags[name].value)
  try:
    # As `pydicom` will when the text is written. It would quote it in the error.
    validate_value(tags[name].VR, text, RAISE)
  except ValueError:
    return ""
  return text if name != "PatientSex" or text in _SEXES else ""
