"""One case of Gibson et al. from its files to a checked pair on canonical axes."""

from pathlib import Path

import numpy as np

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.judge import Judge
from attn_unet_jax.volumes.nifti import read_label
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Volume
from tfds_pancreas.checked_case import CheckedCase
from tfds_pancreas.gibson_ct.gibson_files import GibsonCaseFiles
from tfds_pancreas.gibson_ct.label_placement import place_label
from tfds_pancreas.label_checks import find_spacing_problem
from tfds_pancreas.nifti_case import (
  LabelMeaning,
  NiftiCaseFiles,
  add_checked_pair,
  read_nifti_case,
  replace_values,
)
from tfds_pancreas.pancreas_ct.pancreas_files import CaseScan, read_dicom_scan


def read_gibson_case(files: GibsonCaseFiles, *, meaning: LabelMeaning, judge: Judge) -> CheckedCase:
  """Reads a case and checks it; whatever is wrong with it ends in its `problems`."""
  # On which of two scans the label was drawn is not guessed.
  if len(files.scans) != 1:
    return CheckedCase(files.id, problems=[_describe_scans(files)])
  scan = files.scans[0]
  # Scans of BTCV are NIfTI files, and labels drawn on them have headers that can be trusted.
  if isinstance(scan, Path) and scan.is_file():
    case = read_nifti_case(
      NiftiCaseFiles(files.id, scan, files.label), meaning=meaning, judge=judge
    )
  else:
    case = CheckedCase(files.id)
    try:
      _add_placed_pair(case, scan, files.label, meaning, judge)
    except UserError as error:
      case.problems.append(str(error))
  # For the report alone: in which axes the table counts, and whether inclusively, is not known.
  if files.cropping:
    case.figures["cropping"] = dict(files.cropping)
  return case


def _add_placed_pair(
  case: CheckedCase, scan: CaseScan, path: Path, meaning: LabelMeaning, judge: Judge
) -> None:
  """Adds a DICOM scan and its label to a case."""
  label, image = read_label(path), read_dicom_scan(scan, judge.accept)
  label = Volume(replace_values(label.array, meaning.replaced), label.affine)
  if not label.array.any():
    raise UserError(f"{path}: the label is empty")  # no figures could place it
  case.figures = {
    "shape": image.volume.shape,
    "spacing_mm": image.volume.spacing,
    # The differences add up to the last number less the first.
    "instance_numbers": "rising" if np.diff(image.instance_numbers).sum() > 0 else "falling",
  }
  case.doubts = judge.judge_scan(image.volume, "its scan")
  placed, how = place_label(label, image)
  case.figures |= how
  add_checked_pair(case, to_canonical(image.volume), to_canonical(placed), meaning)
  # The placement is a guess, so what is a doubt of a trusted header is a problem here.
  doubt = case.figures.pop("doubt", "")
  case.problems += filter(None, [doubt, find_spacing_problem(image.volume.spacing, label.spacing)])


def _describe_scans(files: GibsonCaseFiles) -> str:
  if not files.scans:
    return f"no scan of that name for {files.label}"
  found = ", ".join(str(getattr(scan, "uid", scan)) for scan in files.scans)
  return f"{len(files.scans)} scans: {found}; keep one"
