"""A small Pancreas-CT: real DICOM and NIfTI files of drawn cases, in each of its layouts."""

import uuid
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

PATIENT = {
  "PatientName": "Doe^Jane",
  "PatientBirthDate": "19341112",
  "OtherPatientIDs": "MRN-66193",
  "AccessionNumber": "ACC-55028",
  "InstitutionName": "Saint Nowhere",
  "ReferringPhysicianName": "Brungle^Ottilie",
}
SPACING = (0.8, 0.9, 2.5)
PANCREAS = (slice(6, 14), slice(17, 25), slice(1, 4))
LAYOUTS = ("nbia", "old", "flat")


@dataclass
class FakeCase:
  """A drawn case `[X, Y, Z]` on canonical axes, and how its files are to be written.

  `rising` says whether InstanceNumber rises with the position.
  """

  number: int
  rising: bool = True
  slices: int = 8
  label_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
  instances: list[int] = field(init=False)

  def __post_init__(self):
    rng = np.random.default_rng(self.number)
    shape = (32, 32, self.slices)
    hu = rng.normal(-100, 20, shape)  # fat, in air, with a spine
    hu[:, :4] = hu[:3] = -1000
    hu[14:19, 5:10] = 500
    hu[PANCREAS] = rng.normal(90, 15, hu[PANCREAS].shape)
    self.image = np.clip(np.rint(hu), -1000, 3000).astype(np.int16)
    self.label = np.zeros(shape, np.uint8)
    self.label[PANCREAS] = 1
    self.label[6, 17, 1] = 0  # no symmetric block
    order = range(1, self.slices + 1)
    self.instances = list(order if self.rising else reversed(order))
    self.origin = np.array([-12.5, 3.25, -400.0 - self.number])

  @property
  def id(self):
    return f"PANCREAS_{self.number:04d}"

  @property
  def affine(self):
    """The affine from voxel index to mm in RAS+."""
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = self.origin
    return affine

  def to_stored_label(self):
    """Returns the label as its file holds it: [column, row, InstanceNumber - 1]."""
    by_place = self.label[::-1, ::-1]
    stored = np.empty_like(by_place)
    stored[:, :, np.array(self.instances) - 1] = by_place
    return stored


def write_case(root: Path, case: FakeCase, layout: str) -> list[Path]:
  """Writes scan and label; returns the DICOM files in the order of their positions."""
  write_label(label_path(root, case, layout), case.to_stored_label(), case.label_mm)
  study, series = generate_uid(entropy_srcs=[case.id]), generate_uid(entropy_srcs=[case.id, "s"])
  folder = {
    "nbia": root / f"manifest-1/Pancreas-CT/{case.id}/11-24-2015-PANCREAS-{case.number}/Pancreas-9",
    "old": root / "DOI" / case.id / study / series,
    "flat": root / "scans",
  }[layout]
  folder.mkdir(parents=True, exist_ok=True)
  shuffled = np.random.default_rng(case.number).permutation(case.slices)
  files = []
  for z in range(case.slices):
    name = uuid.uuid5(uuid.NAMESPACE_OID, f"{case.id} {z}").hex if layout == "flat" else ""
    files.append(folder / (f"{name}.dcm" if name else f"1-{shuffled[z] + 1:03d}.dcm"))
    _make_slice(case, z, study, series).save_as(files[-1], enforce_file_format=True)
  return files


def label_path(root: Path, case: FakeCase, layout: str) -> Path:
  """Labels lie in their own folder as .nii.gz, or beside the scans as .nii."""
  if layout == "old":
    return root / "DOI" / case.id / f"label{case.number:04d}.nii"
  return root / "TCIA_pancreas_labels-02-05-2017" / f"label{case.number:04d}.nii.gz"


def write_label(path: Path, stored: np.ndarray, zooms: tuple[float, float, float]) -> None:
  """Writes a label whose header puts it somewhere else and turns it around."""
  path.parent.mkdir(parents=True, exist_ok=True)
  affine = np.diag([-zooms[0], zooms[1], -zooms[2], 1.0])
  affine[:3, 3] = (1000, -500, 77)
  nib.save(nib.Nifti1Image(stored, affine), path)


def _make_slice(case: FakeCase, z: int, study: str, series: str) -> Dataset:
  """Makes one slice."""
  # Columns run to the patient's left and rows to the back, as in every axial CT.
  nx, ny = case.image.shape[:2]
  one = Dataset()
  for name, value in PATIENT.items():
    setattr(one, name, value)
  one.PatientID, one.Modality, one.ImageType = case.id, "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
  one.StudyInstanceUID, one.SeriesInstanceUID = study, series
  one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, generate_uid(entropy_srcs=[series, str(z)])
  one.InstanceNumber = case.instances[z]
  right, front, low = case.origin + (np.array([nx - 1, ny - 1, z]) * SPACING)
  one.ImagePositionPatient = [-right, -front, low]
  one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
  one.PixelSpacing = [SPACING[1], SPACING[0]]  # between rows, then between columns
  one.SliceThickness = one.SpacingBetweenSlices = 0.33  # wrong, as in real copies
  one.Rows, one.Columns, one.SamplesPerPixel = ny, nx, 1
  one.PhotometricInterpretation, one.PixelRepresentation = "MONOCHROME2", 0
  one.BitsAllocated, one.BitsStored, one.HighBit = 16, 12, 11
  one.RescaleSlope, one.RescaleIntercept = 1, -1024
  stored = case.image[::-1, ::-1, z].T + 1024
  one.PixelData = stored.astype("<u2").tobytes()
  one.file_meta = FileMetaDataset()
  one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
  return one
