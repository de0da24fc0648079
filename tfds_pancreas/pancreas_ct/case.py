"""One case of Pancreas-CT from its files to a checked pair on canonical axes."""

from pathlib import Path

import numpy as np

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.read import DicomVolume
from attn_unet_jax.volumes.nifti import read_label
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Volume
from tfds_pancreas.checked_case import CheckedCase, Pair
from tfds_pancreas.checks import flip_problem, label_figures, spacing_problem, value_problem
from tfds_pancreas.pancreas_ct.alignment import align
from tfds_pancreas.pancreas_ct.layout import CaseFiles, read_scan


def read_case(files: CaseFiles) -> CheckedCase:
  """Reads, aligns and checks a case; whatever is wrong with it ends in its `problems`."""
  case = CheckedCase(files.id)
  if files.problem:
    case.problems.append(files.problem)
    return case
  try:
    _fill(case, read_scan(files.scans[0]), files.labels[0])
  except UserError as error:
    case.problems.append(str(error))
  return case


def _fill(case: CheckedCase, scan: DicomVolume, path: Path) -> None:
  label = read_label(path)
  case.figures = {
    "shape": scan.volume.shape,
    "spacing_mm": scan.volume.spacing,
    "tag_slice_distance_mm": scan.tag_spacing_mm,
    "label_shape": label.shape,
    "label_header_spacing_mm": label.spacing,
    "instance_numbers": "rising" if np.diff(scan.instance_numbers).sum() > 0 else "falling",
  }
  aligned = align(label.array, scan.volume.shape, scan.instance_numbers)
  wrong = [value_problem(aligned), spacing_problem(scan.volume.spacing, label.spacing)]
  case.problems += filter(None, wrong)
  if wrong[0]:
    return
  pair = Pair(to_canonical(scan.volume), to_canonical(Volume(aligned, scan.volume.affine)))
  case.figures |= label_figures(pair.image.array, pair.label.array)
  case.problems += filter(None, [flip_problem(case.figures["flip_scores"])])
  case.pair = pair
