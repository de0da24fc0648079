"""One case of Pancreas-CT from its files to a checked pair on canonical axes."""

from pathlib import Path

import numpy as np

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.read import DicomVolume
from attn_unet_jax.volumes.judge import Judge
from attn_unet_jax.volumes.nifti import read_label
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Volume
from tfds_pancreas.checked_case import CheckedCase, VolumePair
from tfds_pancreas.label_checks import (
  find_flip_problem,
  find_spacing_problem,
  find_value_problem,
  measure_label,
)
from tfds_pancreas.pancreas_ct.label_alignment import align_label
from tfds_pancreas.pancreas_ct.pancreas_files import PancreasCaseFiles, read_dicom_scan


def read_pancreas_case(files: PancreasCaseFiles, *, judge: Judge) -> CheckedCase:
  """Reads, aligns and checks a case; whatever is wrong with it ends in its `problems`."""
  case = CheckedCase(files.id)
  if files.problem:
    case.problems.append(files.problem)
    return case
  try:
    scan = read_dicom_scan(files.scans[0], judge.accept)
    _add_aligned_pair(case, scan, files.labels[0], judge)
  except UserError as error:
    case.problems.append(str(error))
  return case


def _add_aligned_pair(case: CheckedCase, scan: DicomVolume, path: Path, judge: Judge) -> None:
  label = read_label(path)
  # Before anything can fail: the report has the figures of bad cases as well.
  case.figures = {
    "shape": scan.volume.shape,
    "spacing_mm": scan.volume.spacing,
    # For the report alone: in a public copy it says 0.01 to 0.83 where slices are 1 mm apart.
    "tag_slice_distance_mm": scan.tag_spacing_mm,
    "label_shape": label.shape,
    "label_header_spacing_mm": label.spacing,
    # The differences add up to the last number less the first.
    "instance_numbers": "rising" if np.diff(scan.instance_numbers).sum() > 0 else "falling",
  }
  case.doubts = judge.judge_scan(scan.volume, "its scan")
  aligned = align_label(label.array, scan.volume.shape, scan.instance_numbers)
  value_problem = find_value_problem(aligned)
  spacing_problem = find_spacing_problem(scan.volume.spacing, label.spacing)
  case.problems += filter(None, [value_problem, spacing_problem])
  if value_problem:
    return  # flips of an empty label, or of one of unknown values, have no scores
  pair = VolumePair(to_canonical(scan.volume), to_canonical(Volume(aligned, scan.volume.affine)))
  case.figures |= measure_label(pair.image.array, pair.label.array)
  # No header can be trusted here, so that a better flip is a fault and not a doubt.
  case.problems += filter(None, [find_flip_problem(case.figures["flip_scores"])])
  case.pair = pair
