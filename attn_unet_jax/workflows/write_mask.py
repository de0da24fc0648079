"""Writes masks in the formats that --output_format names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.volumes.dicom.source import SourceSeries
from attn_unet_jax.volumes.dicom.write_segmentation import check_frames, write_segmentation
from attn_unet_jax.volumes.dicom.write_structures import write_structures
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.scan import FoundScan
from attn_unet_jax.volumes.volume import Volume

OutputFormat = Literal["nifti", "dicom-seg", "rtstruct"]
OUTPUT_FORMATS: tuple[OutputFormat, ...] = get_args(OutputFormat)
# What names of masks end in; a mask that is named by its scan has the last of them.
SUFFIXES: Mapping[OutputFormat, tuple[str, ...]] = {
  "nifti": (".nii", ".nii.gz"),
  "dicom-seg": (".dcm",),
  "rtstruct": (".dcm",),
}


def is_dicom_format(output_format: OutputFormat) -> bool:
  """Returns whether masks of a format are DICOM, and so need a scan in DICOM to refer to."""
  return output_format != "nifti"


def read_mask_source(scan: FoundScan, output_format: OutputFormat) -> SourceSeries | None:
  """Reads what a mask will say about its scan, before the scan is segmented; None for NIfTI.

  A line names UIDs that the slices have lost.

  Raises:
    UserError: the slices cannot be referred to.
  """
  if not is_dicom_format(output_format):
    return None
  source = scan.read_source()
  if output_format == "dicom-seg":
    # highdicom refuses such slices only when the mask is written, after all the work.
    check_frames(source)
  if source.missing:
    print_line(
      f"{scan.path}: the slices have no {', '.join(source.missing)}; the mask gets new ones, and "
      "refers to the slices by their SOPInstanceUIDs"
    )
  return source


def write_mask(
  target: Path,
  mask: Volume,
  scan: FoundScan,
  source: SourceSeries | None,
  output_format: OutputFormat,
  label_names: Mapping[str, int],
) -> None:
  """Writes a mask.

  Args:
    target: the file to write.
    mask: class indices uint8 on the scan's grid.
    scan: the scan that was segmented.
    source: what `read_mask_source` returned for it.
    output_format: the format.
    label_names: the value of each name, background included.

  Raises:
    UserError: the file cannot be written.
  """
  # None is a mask in NIfTI, which refers to no slices.
  if source is None:
    # A DICOM scan has no NIfTI header to copy.
    like = scan.path if scan.survey is None else None
    write_nifti(target, mask, like=like, label_names=label_names)
  elif output_format == "dicom-seg":
    write_segmentation(target, mask.array, source, label_names)
  else:
    write_structures(target, mask.array, source, label_names)
