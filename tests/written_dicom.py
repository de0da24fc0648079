"""DICOM as a scanner writes it, from a volume, for tests of what reads it."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import DataElement, config
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, generate_uid

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume

IDENTITY = {
  "PatientName": "Zyxwell^Quilla",
  "PatientID": "MRN-4711",
  "PatientBirthDate": "03-Feb-1951",  # not valid, so that a reader may want to quote it
  "AccessionNumber": "ACC-9917",
  "InstitutionName": "Saint Nowhere",
  "ReferringPhysicianName": "Brungle^Ottilie",
  "SeriesDescription": "Zyxwell, portal",
}


def assert_anonymous(text: str) -> None:
  """No part of who the patient is, or of what a person wrote, is in a text."""
  pieces = [piece for value in IDENTITY.values() for piece in re.split(r"[\^, ]+", value)]
  assert not [piece for piece in pieces if piece.lower() in text.lower()]


def assert_refused(read: Callable[[Path], object], folder: Path, *complaints: str) -> None:
  """Reading a folder is refused in one line with these complaints, and without the patient."""
  with pytest.raises(UserError) as refused:
    read(folder)
  said = str(refused.value)
  for complaint in complaints:
    assert complaint in said
  assert "\n" not in said
  assert_anonymous(said)


def setting(k: int, **tags: object) -> Callable[[list[Dataset]], None]:
  """A change that sets elements of the k-th slice, or removes those given as None."""

  def change(slices: list[Dataset]) -> None:
    for name, value in tags.items():
      delattr(slices[k], name) if value is None else setattr(slices[k], name, value)

  return change


def moving(k: int, mm: float, axis: int = 2) -> Callable[[list[Dataset]], None]:
  """A change that puts the k-th slice elsewhere."""

  def change(slices: list[Dataset]) -> None:
    position = slices[k].ImagePositionPatient
    position[axis] = float(position[axis]) + mm

  return change


def slices_of(volume: Volume, *, uid: str = "1.2.3", **tags: object) -> list[Dataset]:
  """One data set for every k of a volume in HU, with what a CT's slices carry.

  Stored as int16 with intercept -1024; `tags` replace or add elements.
  """
  lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
  spacing = np.linalg.norm(lps[:3, :3], axis=0)
  return [_slice(volume, lps, spacing, k, uid, tags) for k in range(volume.shape[2])]


def write(folder: Path, slices: list[Dataset], *, name: str = "{k}.dcm") -> list[Path]:
  """Writes the slices into a folder, which is made, in the order of the list."""
  folder.mkdir(parents=True, exist_ok=True)
  files = [folder / name.format(k=k) for k in range(len(slices))]
  for file, one in zip(files, slices, strict=True):
    pydicom.dcmwrite(file, one, enforce_file_format=True)
  return files


def write_volume(
  folder: Path, volume: Volume, *, change: Callable[[list[Dataset]], object] = id, **tags: object
) -> list[Path]:
  """Writes a volume as a series; `change` may alter the list of slices before."""
  slices = slices_of(volume, **tags)
  change(slices)
  return write(folder, slices)


def enhanced(volume: Volume, order: Sequence[int] | None = None, **tags: object) -> Dataset:
  """The same as one multi-frame data set, its frames in some order."""
  slices = slices_of(volume, **tags)
  one = slices_of(volume, SOPClassUID=EnhancedCTImageStorage, **tags)[0]
  order = range(len(slices)) if order is None else order
  one.NumberOfFrames = len(slices)
  one.PixelData = b"".join(slices[k].PixelData for k in order)
  shared = Dataset()
  shared.PlaneOrientationSequence = [_moved(one, "ImageOrientationPatient")]
  shared.PixelMeasuresSequence = [_moved(one, "PixelSpacing", "SliceThickness")]
  one.SharedFunctionalGroupsSequence = [shared]
  one.PerFrameFunctionalGroupsSequence = [_frame(slices[k]) for k in order]
  for name in ("ImagePositionPatient", "RescaleSlope", "RescaleIntercept", "InstanceNumber"):
    delattr(one, name)  # only the frames have them
  return one


def _frame(one: Dataset) -> Dataset:
  frame = Dataset()
  frame.PlanePositionSequence = [_moved(one, "ImagePositionPatient")]
  frame.PixelValueTransformationSequence = [_moved(one, "RescaleSlope", "RescaleIntercept")]
  return frame


def _moved(one: Dataset, *names: str) -> Dataset:
  """Some elements, taken out of a data set."""
  item = Dataset()
  for name in names:
    setattr(item, name, one[name].value)
    delattr(one, name)
  return item


def _slice(volume, lps, spacing, k, uid, tags) -> Dataset:
  one = Dataset()
  one.file_meta = FileMetaDataset()
  one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
  one.SOPClassUID = CTImageStorage
  one.SOPInstanceUID = generate_uid()
  one.Modality, one.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
  one.StudyInstanceUID, one.SeriesInstanceUID = "1.2", uid
  one.SeriesNumber, one.InstanceNumber = 4, k + 1
  one.Columns, one.Rows = volume.shape[:2]
  one.PixelSpacing = [_decimal(spacing[1]), _decimal(spacing[0])]
  one.ImagePositionPatient = [_decimal(x) for x in (lps @ [0, 0, k, 1])[:3]]
  one.ImageOrientationPatient = [_decimal(x) for x in (lps[:3, :2] / spacing[:2]).T.ravel()]
  one.SliceThickness = _decimal(spacing[2])
  one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
  one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
  one.RescaleSlope, one.RescaleIntercept = 1, -1024
  one.PixelData = np.ascontiguousarray(volume.array[:, :, k].T + 1024).astype("<i2").tobytes()
  for name, value in IDENTITY.items():
    one.add(DataElement(name, dictionary_VR(name), value, validation_mode=config.IGNORE))
  for name, value in tags.items():
    setattr(one, name, value)
  return one


def _decimal(value: float) -> str:
  """A decimal string of DICOM: at most 16 characters."""
  return pydicom.valuerep.format_number_as_ds(float(value))
