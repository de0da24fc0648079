"""One case of Gibson et al. from its files to a checked pair on canonical axes."""

from pathlib import Path

import numpy as np

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti import read_label
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Volume
from tfds_pancreas import nifti_case
from tfds_pancreas.checked_case import CheckedCase
from tfds_pancreas.checks import spacing_problem
from tfds_pancreas.gibson_ct.layout import GibsonCase
from tfds_pancreas.gibson_ct.placement import place
from tfds_pancreas.nifti_case import Meaning, NiftiCase
from tfds_pancreas.pancreas_ct.layout import Scan, read_scan


def read_case(files: GibsonCase, *, meaning: Meaning) -> CheckedCase:
  """Reads and checks a case; whatever is wrong with it ends in its `problems`."""
  if len(files.scans) != 1:
    return CheckedCase(files.id, problems=[_scan_problem(files)])
  scan = files.scans[0]
  if isinstance(scan, Path) and scan.is_file():
    case = nifti_case.read_case(NiftiCase(files.id, scan, files.label), meaning=meaning)
  else:
    case = CheckedCase(files.id)
    try:
      _fill(case, scan, files.label, meaning)
    except UserError as error:
      case.problems.append(str(error))
  if files.cropping:
    case.figures["cropping"] = dict(files.cropping)
  return case


def _fill(case: CheckedCase, scan: Scan, path: Path, meaning: Meaning) -> None:
  """Of a DICOM scan."""
  label, image = read_label(path), read_scan(scan)
  label = Volume(nifti_case.replaced(label.array, meaning.replaced), label.affine)
  if not label.array.any():
    raise UserError(f"{path}: the label is empty")
  case.figures = {
    "shape": image.volume.shape,
    "spacing_mm": image.volume.spacing,
    "instance_numbers": "rising" if np.diff(image.instance_numbers).sum() > 0 else "falling",
  }
  placed, how = place(label, image)
  case.figures |= how
  nifti_case.fill(case, to_canonical(image.volume), to_canonical(placed), meaning)
  wrong = [case.figures.pop("doubt", ""), spacing_problem(image.volume.spacing, label.spacing)]
  case.problems += filter(None, wrong)


def _scan_problem(files: GibsonCase) -> str:
  if not files.scans:
    return f"no scan of that name for {files.label}"
  found = ", ".join(str(getattr(scan, "uid", scan)) for scan in files.scans)
  return f"{len(files.scans)} scans: {found}; keep one"
