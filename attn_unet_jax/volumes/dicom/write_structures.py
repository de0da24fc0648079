"""Writes a mask as an RT Structure Set: contours on the slices, in the coordinates of the patient.

A contour runs along the edges of voxels, so it encloses their area exactly; see `contours`. A hole
is cut into the contour around it by a channel of no width, the keyhole of DICOM PS3.3 C.8.8.6.3.
"""

from __future__ import annotations

import copy
import datetime
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid
from scipy.ndimage import find_objects

from attn_unet_jax.volumes.contours import trace_contours
from attn_unet_jax.volumes.dicom import anatomy
from attn_unet_jax.volumes.dicom.equipment import (
  MANUFACTURER,
  MODEL,
  SERIES_DESCRIPTION,
  VERSION,
  save_dataset,
  skip_value_checks,
)
from attn_unet_jax.volumes.dicom.source import SourceSeries, SourceSlice

# Retired, and what every program writes here (Detached Study Management, DICOM PS3.4 B.5).
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"


def write_structures(
  path: Path, mask: np.ndarray, source: SourceSeries, label_names: Mapping[str, int]
) -> None:
  """Writes the contours of every class on every slice.

  Args:
    path: the file to write.
    mask: class indices uint8 [columns, rows, slices], the slices in the order of `source`.
    source: the series that was segmented.
    label_names: the value of each class: 1, 2, ...; and of the background, 0.

  Raises:
    UserError: the file cannot be written.
    ValueError: the mask is not on the grid of the series.
  """
  if mask.shape != source.size:
    raise ValueError(f"the mask has the shape {mask.shape}, the series {source.size}")
  with skip_value_checks():
    save_dataset(path, _describe_structures(mask, source, label_names))


def _describe_structures(
  mask: np.ndarray, source: SourceSeries, label_names: Mapping[str, int]
) -> pydicom.Dataset:
  classes = sorted((value, name) for name, value in label_names.items() if value)
  dataset = _describe_instance(source)
  dataset.StructureSetLabel = "SEGMENTATION"
  dataset.StructureSetName = SERIES_DESCRIPTION
  dataset.StructureSetDate, dataset.StructureSetTime = dataset.SeriesDate, dataset.SeriesTime
  dataset.ReferencedFrameOfReferenceSequence = [_refer_to_series(source)]
  dataset.StructureSetROISequence = [
    _build(
      ROINumber=value,
      ReferencedFrameOfReferenceUID=source.common.FrameOfReferenceUID,
      ROIName=anatomy.clean_label(name),
      ROIGenerationAlgorithm="AUTOMATIC",
    )
    for value, name in classes
  ]
  contours = _draw_classes(mask, source)
  dataset.ROIContourSequence = [
    _describe_class(value, contours.get(value, [])) for value, _ in classes
  ]
  dataset.RTROIObservationsSequence = [_observe_class(value, name) for value, name in classes]
  dataset.ApprovalStatus = "UNAPPROVED"
  return dataset


def _build(**elements: object) -> pydicom.Dataset:
  """Builds a data set of elements by their keywords."""
  dataset = pydicom.Dataset()
  for name, value in elements.items():
    setattr(dataset, name, value)
  return dataset


def _describe_instance(source: SourceSeries) -> pydicom.Dataset:
  """Returns a new instance in a new series of the patient's study."""
  dataset = copy.deepcopy(source.common)
  dataset.file_meta = FileMetaDataset()
  # The length of an element is not limited here. With an explicit VR it is, to 64 KiB, and the
  # contour of a large organ is longer.
  dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
  now = datetime.datetime.now()
  dataset.SOPClassUID, dataset.SOPInstanceUID = RTStructureSetStorage, generate_uid()
  dataset.SeriesInstanceUID, dataset.Modality = generate_uid(), "RTSTRUCT"
  dataset.SeriesDescription, dataset.InstanceNumber = SERIES_DESCRIPTION, 1
  dataset.SeriesDate = dataset.InstanceCreationDate = now.strftime("%Y%m%d")
  dataset.SeriesTime = dataset.InstanceCreationTime = now.strftime("%H%M%S")
  dataset.Manufacturer, dataset.ManufacturerModelName = MANUFACTURER, MODEL
  dataset.PositionReferenceIndicator = ""  # which may be empty, and must be there
  dataset.SoftwareVersions, dataset.OperatorsName = VERSION, ""
  return dataset


def _refer_to_series(source: SourceSeries) -> pydicom.Dataset:
  common = source.common
  series = _build(
    SeriesInstanceUID=common.SeriesInstanceUID,
    ContourImageSequence=[_refer_to_slice(one) for one in source.slices],
  )
  study = _build(
    ReferencedSOPClassUID=_STUDY_CLASS,
    ReferencedSOPInstanceUID=common.StudyInstanceUID,
    RTReferencedSeriesSequence=[series],
  )
  return _build(FrameOfReferenceUID=common.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _refer_to_slice(one: SourceSlice) -> pydicom.Dataset:
  item = _build(ReferencedSOPClassUID=one.sop_class, ReferencedSOPInstanceUID=one.sop_instance)
  if one.place.frame is not None:
    item.ReferencedFrameNumber = one.place.frame + 1  # DICOM counts frames from 1
  return item


def _draw_classes(mask: np.ndarray, source: SourceSeries) -> dict[int, list[pydicom.Dataset]]:
  """Describes the contours of each class, slice by slice; a class without a voxel has none."""
  contours: dict[int, list[pydicom.Dataset]] = {}
  for k, one in enumerate(source.slices):
    here = np.ascontiguousarray(mask[:, :, k])
    # The smallest box around each class, for tracing takes time of what it looks at.
    for value, box in enumerate(find_objects(here), 1):
      if box is None:
        continue
      corner = [part.start for part in box]
      for polygon in trace_contours(here[box] == value):
        drawn = contours.setdefault(value, [])
        drawn.append(_describe_contour(polygon + corner, one, len(drawn) + 1))
  return contours


def _describe_class(value: int, contours: list[pydicom.Dataset]) -> pydicom.Dataset:
  item = _build(ROIDisplayColor=anatomy.choose_colour(value), ReferencedROINumber=value)
  if contours:
    item.ContourSequence = contours
  return item


def _describe_contour(polygon: np.ndarray, one: SourceSlice, number: int) -> pydicom.Dataset:
  """Describes a polygon [N, 2] of columns and rows on its slice, in mm of the patient (LPS)."""
  place = one.place
  points = place.position + polygon * place.spacing @ place.directions
  contour = _build(
    ContourImageSequence=[_refer_to_slice(one)],
    ContourGeometricType="CLOSED_PLANAR",
    NumberOfContourPoints=len(points),
    ContourNumber=number,
  )
  # As the bytes of the file: pydicom would check every number of millions for itself. They have at
  # most 16 characters each, and a tenth of a micrometre is far below any voxel.
  text = "\\".join([f"{value:.4f}" for value in points.ravel().tolist()]).encode()
  text += b" " * (len(text) % 2)  # values of DICOM have an even length
  tag = Tag("ContourData")
  contour[tag] = RawDataElement(tag, "DS", len(text), text, 0, True, True)
  return contour


def _observe_class(value: int, name: str) -> pydicom.Dataset:
  """Says what a class is, in the words of radiotherapy and by its code."""
  found = anatomy.find_anatomy(name)
  is_organ = found.structure in anatomy.STRUCTURES.values()
  code = _describe_code(found.structure)
  if found.side:
    code.SegmentedPropertyTypeModifierCodeSequence = [_describe_code(found.side)]
  return _build(
    ObservationNumber=value,
    ReferencedROINumber=value,
    RTROIIdentificationCodeSequence=[code],
    RTROIInterpretedType="ORGAN" if is_organ else "",
    ROIInterpreter="",
  )


def _describe_code(code: anatomy.Code) -> pydicom.Dataset:
  return _build(CodeValue=code.value, CodingSchemeDesignator="SCT", CodeMeaning=code.meaning)
