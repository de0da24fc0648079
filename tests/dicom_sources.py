"""Series in the forms that a mask in DICOM is written for, and what such a mask must say."""

import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from scipy.spatial import cKDTree

from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.dicom.read import choose_series, read_series, survey_files
from attn_unet_jax.volumes.dicom.source import SourceSeries, read_source
from attn_unet_jax.volumes.nifti import write_nifti
from tests.written_dicom import enhanced, slices_of, write

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
NAMES = {"background": 0, "pancreas": 1, "kidney_left": 2, "Lefort's thing": 3}
SHAPE = (11, 9, 7)  # no multiple of 8, so that frames share bytes
ORDER = [3, 0, 6, 1, 5, 2, 4]
_STRAIGHT = np.diag([-0.8, -0.7, 2.5, 1.0])
_STRAIGHT[:3, 3] = 90, 80, -700
VARIANTS = ("plain", "columns negated", "shuffled", "oblique", "drifting", "frames", "zip", "bare")


def make_affine(variant: str) -> np.ndarray:
  affine = _STRAIGHT.copy()
  if variant == "columns negated":
    affine[:3, 1] *= -1
  elif variant == "oblique":
    affine[:3, :3] = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0] * (0.8, 0.7, 2.5)
  elif variant == "drifting":
    affine[:3, 2] += (0.04, 0, 0)  # less than half a pixel in all
  return affine


def write_source(folder: Path, variant: str) -> Path:
  """Writes a series in one of its forms; returns the folder or .zip."""
  array = np.random.default_rng(0).integers(-900, 900, SHAPE).astype(np.int16)
  scan = Volume(array, make_affine(variant))
  # The tag of the thickness is wrong, as it may be.
  tags = {"SliceThickness": 4, "FrameOfReferenceUID": "1.2.9"}
  if variant == "frames":
    write(folder, [enhanced(scan, ORDER, FrameOfReferenceUID="1.2.9")])
    return folder
  if variant == "bare":
    tags |= dict.fromkeys(("StudyInstanceUID", "FrameOfReferenceUID", "PatientName"), "")
  slices = slices_of(scan, **tags)
  for one in slices if variant == "bare" else ():
    one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
    one.SOPInstanceUID = one.SOPClassUID = ""
  files = write(folder, [slices[k] for k in ORDER] if variant == "shuffled" else slices)
  if variant != "zip":
    return folder
  with zipfile.ZipFile(folder.with_suffix(".zip"), "w") as archive:
    for file in files:
      archive.write(file, f"inner/{file.name}")
  return folder.with_suffix(".zip")


def read_both(path: Path) -> tuple[Volume, SourceSeries]:
  """Reads a series, and what a mask says about it."""
  series = choose_series(survey_files(path))
  return read_series(series).volume, read_source(series)


def make_mask(shape=SHAPE) -> np.ndarray:
  """Three classes, with holes and corners that touch; the first and last slices have none."""
  mask = np.random.default_rng(1).integers(0, 4, shape).astype(np.uint8)
  mask[2:-2, 2:-2, shape[2] // 2] = 1
  mask[4:6, 4, shape[2] // 2] = 0
  mask[:, :, [0, -1]] = 0
  mask[mask == 3] = 0  # the third class is not in this scan
  return mask


def find_points(array: np.ndarray, affine: np.ndarray) -> np.ndarray:
  """The places of the voxels that are not zero, in mm of the patient (RAS): [N, 3]."""
  return nib.affines.apply_affine(affine, np.argwhere(array))


def read_nifti_points(mask: Volume, value: int, folder: Path) -> np.ndarray:
  """The places of a class in the NIfTI file that is written for a mask of a DICOM scan."""
  write_nifti(folder / "mask.nii.gz", mask)
  image = nib.load(folder / "mask.nii.gz")
  return find_points(np.asarray(image.dataobj) == value, image.affine)


def assert_same_points(found: np.ndarray, expected: np.ndarray, within_mm: float = 0.01) -> None:
  """Both name the same places, each once."""
  assert len(found) == len(expected)
  if len(expected):
    distances, places = cKDTree(expected).query(found)
    assert distances.max() < within_mm
    assert len(set(places.tolist())) == len(expected)


def read_frame_points(file: Path, segment: int) -> np.ndarray:
  """The places of a segment by the standard alone: each frame's position, and shared the rest."""
  tags = pydicom.dcmread(file)
  shared = tags.SharedFunctionalGroupsSequence[0]
  rows, columns = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
  cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
  points = [np.empty((0, 3))]
  pixels = tags.pixel_array.reshape(-1, tags.Rows, tags.Columns)
  for frame, image in zip(tags.PerFrameFunctionalGroupsSequence, pixels, strict=True):
    # Shared where there is one segment alone.
    identified = frame if "SegmentIdentificationSequence" in frame else shared
    if identified.SegmentIdentificationSequence[0].ReferencedSegmentNumber == segment:
      affine = np.eye(4)
      affine[:3, 0], affine[:3, 1] = cosines[3:] * rows, cosines[:3] * columns
      affine[:3, 3] = frame.PlanePositionSequence[0].ImagePositionPatient
      points.append(find_points(image[:, :, None], LPS_TO_RAS @ affine))
  return np.concatenate(points)


def read_slices(path: Path) -> dict[str, np.ndarray]:
  """The affine (row, column, 0) -> mm (LPS) of every slice or frame, by its UID and number."""
  affines = {}
  for file in path.iterdir():
    tags = pydicom.dcmread(file)
    frames = tags.get("PerFrameFunctionalGroupsSequence") or [None]
    shared = tags.get("SharedFunctionalGroupsSequence") or [tags]
    measures = shared[0].get("PixelMeasuresSequence", [tags])[0]
    cosines = np.array(
      shared[0].get("PlaneOrientationSequence", [tags])[0].ImageOrientationPatient, float
    )
    for number, frame in enumerate(frames, 1):
      place = tags if frame is None else frame.PlanePositionSequence[0]
      affine = np.eye(4)
      affine[:3, 0] = cosines[3:] * float(measures.PixelSpacing[0])
      affine[:3, 1] = cosines[:3] * float(measures.PixelSpacing[1])
      affine[:3, 2] = np.cross(cosines[:3], cosines[3:])
      affine[:3, 3] = place.ImagePositionPatient
      uid = tags.file_meta.MediaStorageSOPInstanceUID
      affines[uid, None if frame is None else number] = affine
  return affines


def fill_class(tags: pydicom.Dataset, value: int, path: Path, shape) -> np.ndarray:
  """The places in mm (RAS) of the pixels in a class's contours, each contour filled for itself."""
  draw = pytest.importorskip("skimage.draw")
  slices = read_slices(path)
  (item,) = [one for one in tags.ROIContourSequence if one.ReferencedROINumber == value]
  points = [np.empty((0, 3))]
  for contour in item.get("ContourSequence", []):
    assert contour.ContourGeometricType == "CLOSED_PLANAR"
    corners = np.array(contour.ContourData, float).reshape(-1, 3)
    assert len(corners) == contour.NumberOfContourPoints
    (image,) = contour.ContourImageSequence
    affine = slices[image.ReferencedSOPInstanceUID, image.get("ReferencedFrameNumber")]
    inside = np.c_[corners, np.ones(len(corners))] @ np.linalg.inv(affine).T
    assert np.abs(inside[:, 2]).max() < 0.01  # in the plane of its slice
    filled = draw.polygon2mask((shape[1], shape[0]), inside[:, :2])
    points.append(find_points(filled[..., None], LPS_TO_RAS @ affine))
  return np.concatenate(points)


def negate_columns(series: Path, folder: Path) -> Path:
  """Writes the series with its rows in the opposite order, and the geometry that belongs to it."""
  folder.mkdir()
  for file in sorted(series.iterdir()):
    tags = pydicom.dcmread(file)
    cosines = np.array(tags.ImageOrientationPatient, float)
    step = cosines[3:] * float(tags.PixelSpacing[0])
    position = np.array(tags.ImagePositionPatient, float) + step * (tags.Rows - 1)
    tags.ImagePositionPatient = [f"{x:.6f}" for x in position]
    tags.ImageOrientationPatient = [*cosines[:3], *(-cosines[3:])]
    tags.PixelData = np.ascontiguousarray(tags.pixel_array[::-1]).tobytes()
    tags.save_as(folder / file.name)
  return folder
