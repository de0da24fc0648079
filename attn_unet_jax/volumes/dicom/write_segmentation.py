"""Writes a mask as DICOM-SEG, a segmentation that refers to the slices it was made from.

Every class is a segment, with a code of SNOMED CT. A frame of the file lies on a slice and has its
position and orientation, so the mask stays where it is however the slices are stacked. Frames
without a voxel of a class are left out, as is usual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid
from pydicom.valuerep import format_number_as_ds

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.extras import import_extra
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

_NEEDED_BY = "--output_format=dicom-seg"
_ALGORITHM_FAMILY = "123110", "DCM", "Artificial Intelligence"  # of CID 7162


def import_highdicom() -> Any:
  """Imports highdicom.

  Raises:
    UserError: it is not installed.
  """
  return import_extra("highdicom", "dicom", _NEEDED_BY)


# Enhanced CT Image Storage, and what is converted to it: one file holds many frames.
_ENHANCED = frozenset({"1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"})


def check_frames(source: SourceSeries) -> None:
  """Refuses a series whose frames a segmentation cannot refer to.

  Raises:
    UserError: several files are of a class that has frames, or one of another class has them.
  """
  files = {one.place.file for one in source.slices}
  are_enhanced = {one.sop_class in _ENHANCED for one in source.slices}
  if len(files) == 1 and are_enhanced != {True}:
    raise UserError(
      f"{source.folder}: its one file has several frames and is not of the class Enhanced CT, to "
      "which DICOM-SEG could refer; write the mask as NIfTI or RTSTRUCT (--output_format)"
    )
  if len(files) > 1 and are_enhanced != {False}:
    raise UserError(
      f"{source.folder}: the series has {len(files)} files of a class with frames, and DICOM-SEG "
      "refers to one such file; write the mask as NIfTI or RTSTRUCT (--output_format)"
    )


def write_segmentation(
  path: Path, mask: np.ndarray, source: SourceSeries, label_names: Mapping[str, int]
) -> None:
  """Writes a mask as one binary segmentation.

  Args:
    path: the file to write.
    mask: class indices uint8 [columns, rows, slices], the slices in the order of `source`.
    source: the series that was segmented.
    label_names: the value of each class: 1, 2, ...; and of the background, 0.

  Raises:
    UserError: highdicom is not installed, the file cannot be written, or the reasons of
      `check_frames`.
    ValueError: the mask is not on the grid of the series.
  """
  highdicom = import_highdicom()
  check_frames(source)
  if mask.shape != source.size:
    raise ValueError(f"the mask has the shape {mask.shape}, the series {source.size}")
  with skip_value_checks():
    images, order = _describe_images(source)
    frames = np.ascontiguousarray(mask.transpose(2, 1, 0)[order])
    # Of a mask without any voxel highdicom would write all frames: one is enough to say so.
    if not frames.any():
      images, frames = ([images[0]], frames[:1]) if len(images) > 1 else (images, frames)
    dataset = highdicom.seg.Segmentation(
      source_images=images,
      pixel_array=frames,
      segmentation_type="BINARY",
      segment_descriptions=_describe_segments(highdicom, label_names),
      # Asked to leave out all of them, highdicom logs that it does not.
      omit_empty_frames=bool(frames.any()),
      series_instance_uid=generate_uid(),
      series_number=int(source.common.SeriesNumber),
      sop_instance_uid=generate_uid(),
      instance_number=1,
      manufacturer=MANUFACTURER,
      manufacturer_model_name=MODEL,
      software_versions=VERSION,
      # DICOM asks for one, and a program has none.
      device_serial_number=VERSION,
      series_description=SERIES_DESCRIPTION,
      content_label="SEGMENTATION",
      content_description=SERIES_DESCRIPTION,
      content_creator_name=MODEL,
    )
    save_dataset(path, dataset)


def _describe_images(source: SourceSeries) -> tuple[list[pydicom.Dataset], Sequence[int]]:
  """Returns the images as highdicom wants them, and the slice that each of their frames is.

  They have the tags of `source` alone. So all slices have one orientation, where rounding made
  several of it, and the distance of slices is that of their positions, whatever a tag claims.
  """
  if len({one.place.file for one in source.slices}) == len(source.slices):
    return [_describe_slice(source, one) for one in source.slices], range(len(source.slices))
  # Frames are counted as they lie in the file, which need not be in the order of their places.
  order = sorted(range(len(source.slices)), key=lambda k: source.slices[k].place.frame or 0)
  frames = [source.slices[k] for k in order]
  image = _describe_file(source, frames[0])
  image.NumberOfFrames = len(frames)
  measures, orientation = pydicom.Dataset(), pydicom.Dataset()
  _set_measures(measures, source)
  _set_orientation(orientation, source)
  shared = pydicom.Dataset()
  shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
  image.SharedFunctionalGroupsSequence = [shared]
  image.PerFrameFunctionalGroupsSequence = [_describe_frame(one) for one in frames]
  return [image], order


def _describe_file(source: SourceSeries, one: SourceSlice) -> pydicom.Dataset:
  image = pydicom.Dataset()
  image.update(source.common)
  image.Modality, image.SOPClassUID, image.SOPInstanceUID = "CT", one.sop_class, one.sop_instance
  image.Columns, image.Rows = one.place.size
  return image


def _describe_slice(source: SourceSeries, one: SourceSlice) -> pydicom.Dataset:
  image = _describe_file(source, one)
  image.ImagePositionPatient = _format_vector(one.place.position)
  _set_orientation(image, source)
  _set_measures(image, source)
  return image


def _describe_frame(one: SourceSlice) -> pydicom.Dataset:
  group, position = pydicom.Dataset(), pydicom.Dataset()
  position.ImagePositionPatient = _format_vector(one.place.position)
  group.PlanePositionSequence = [position]
  return group


def _set_orientation(dataset: pydicom.Dataset, source: SourceSeries) -> None:
  dataset.ImageOrientationPatient = _format_vector(source.slices[0].place.directions.ravel())


def _set_measures(dataset: pydicom.Dataset, source: SourceSeries) -> None:
  first, last = source.slices[0].place, source.slices[-1].place
  # PixelSpacing gives the distance between rows first.
  dataset.PixelSpacing = _format_vector(first.spacing[::-1])
  # A single slice is refused where slices are arranged, so that this divides by 1 at least.
  along = float((last.position - first.position) @ first.normal) / (len(source.slices) - 1)
  dataset.SliceThickness = dataset.SpacingBetweenSlices = format_number_as_ds(along)


def _format_vector(values: np.ndarray) -> list[str]:
  return [format_number_as_ds(float(value)) for value in values]


def _describe_segments(highdicom: Any, label_names: Mapping[str, int]) -> list[Any]:
  algorithm = highdicom.AlgorithmIdentificationSequence(
    name=MODEL,
    family=Code(*_ALGORITHM_FAMILY),
    version=VERSION,
    source=MANUFACTURER,
  )
  return [
    _describe_segment(highdicom, name, value, algorithm)
    # highdicom refuses numbers that do not rise by 1. The background is no segment.
    for name, value in sorted(label_names.items(), key=lambda item: item[1])
    if value
  ]


def _describe_segment(highdicom: Any, name: str, value: int, algorithm: Any) -> Any:
  found = anatomy.find_anatomy(name)
  segment = highdicom.seg.SegmentDescription(
    segment_number=value,
    segment_label=anatomy.clean_label(name),
    segmented_property_category=_to_concept(found.category),
    segmented_property_type=_to_concept(found.structure),
    algorithm_type="AUTOMATIC",
    algorithm_identification=algorithm,
    display_color=highdicom.color.CIELabColor.from_rgb(*anatomy.choose_colour(value)),
  )
  if found.side:
    side = highdicom.sr.CodedConcept.from_code(_to_concept(found.side))
    segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
  return segment


def _to_concept(code: anatomy.Code) -> Code:
  return Code(code.value, "SCT", code.meaning)
