"""Cases of a collection whose scans and labels are NIfTI files with headers that can be trusted."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attn_unet_jax.labels import IGNORE
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.judge import Judge
from attn_unet_jax.volumes.nifti_folder import explain_channel_names, list_nifti_files, read_pair
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Volume
from tfds_pancreas.checked_case import CheckedCase, VolumePair
from tfds_pancreas.label_checks import find_flip_problem, measure_label


@dataclass(frozen=True)
class NiftiCaseFiles:
  """The files of one case; None where one is missing, `hint` then says more of it."""

  id: str
  image: Path | None
  label: Path | None
  hint: str = ""


@dataclass(frozen=True)
class LabelMeaning:
  """The meaning of a collection's label values.

  Attributes:
    labels: name and value, as in the records.
    replaced: values of the files that become others in the records.
    may_be_empty: whether a scan without any label is as it should be.
  """

  labels: Mapping[str, int]
  replaced: Mapping[int, int]
  may_be_empty: bool = False


def find_nifti_pairs(root: Path) -> list[NiftiCaseFiles]:
  """Finds every name in `imagesTr` or `labelsTr` of a folder, sorted.

  Raises:
    UserError: two files have one name, or there is none at all.
  """
  images, labels = list_nifti_files(root / "imagesTr"), list_nifti_files(root / "labelsTr")
  # Names of either folder: a scan without a label is a bad case, and is not passed over.
  names = sorted(images.keys() | labels.keys())
  if not names:
    raise UserError(f"{root}: no imagesTr/NAME.nii.gz with labelsTr/NAME.nii.gz in it")
  return [
    NiftiCaseFiles(
      name,
      images.get(name),
      labels.get(name),
      "" if name in labels else explain_channel_names([name], labels),
    )
    for name in names
  ]


def read_nifti_case(files: NiftiCaseFiles, *, meaning: LabelMeaning, judge: Judge) -> CheckedCase:
  """Reads a case and checks it; whatever is wrong with it ends in its `problems`."""
  case = CheckedCase(files.id)
  if files.image is None or files.label is None:
    case.problems.append(_describe_missing(files))
    return case
  try:
    image, label, note, case.doubts = read_pair(files.image, files.label, judge)
  except UserError as error:
    case.problems.append(str(error))
    return case
  case.figures = {
    "shape": image.shape,
    "spacing_mm": image.spacing,
    "orientation": image.orientation,
    **({"note": note} if note else {}),
  }
  label = Volume(replace_values(label.array, meaning.replaced), label.affine)
  add_checked_pair(case, to_canonical(image), to_canonical(label), meaning)
  return case


def add_checked_pair(
  case: CheckedCase, image: Volume, label: Volume, meaning: LabelMeaning
) -> None:
  """Adds a canonical pair to a case, with its figures and what is wrong with the label's values."""
  inside = label.array != 0
  values, hu = label.array[inside], image.array[inside]
  if problem := _find_value_problem(np.unique(values), meaning):
    case.problems.append(problem)
    return
  case.pair = VolumePair(image, Volume(label.array.astype(np.uint8, copy=False), label.affine))
  case.figures["labels"] = {
    name: _measure_organ(hu[values == value]) for name, value in meaning.labels.items() if value
  }
  if IGNORE in meaning.labels:  # where nothing is known, hence nothing about a flip
    inside &= label.array != meaning.labels[IGNORE]
  if inside.any():
    case.figures |= measure_label(image.array, inside)
    # Headers have the word on where a label lies, so a flip that fits better is no problem of the
    # case. The report calls it a doubt.
    if doubt := find_flip_problem(case.figures["flip_scores"]):
      case.figures["doubt"] = doubt


def _describe_missing(files: NiftiCaseFiles) -> str:
  present = files.image or files.label
  if present is None:
    return "no image and no label"
  missing = "label" if files.image else "image"
  return f"no {missing} of this name, there is only {present}{files.hint}"


def replace_values(label: np.ndarray, replaced: Mapping[int, int]) -> np.ndarray:
  """Returns a label map with some values changed into others."""
  changed = label.copy() if replaced else label
  for old, new in replaced.items():
    changed[label == old] = new  # by the original, so that values may also be swapped
  return changed


def _find_value_problem(present: np.ndarray, meaning: LabelMeaning) -> str:
  named = {value: name for name, value in meaning.labels.items()}
  unnamed = [int(value) for value in present if int(value) not in named]
  if unnamed:
    return f"label values {unnamed[:8]} have no names; named are {_list_labels(meaning.labels)}"
  return "" if len(present) or meaning.may_be_empty else "the label is empty"


def _list_labels(labels: Mapping[str, int]) -> str:
  return ", ".join(f"{value} {name}" for name, value in labels.items())


def _measure_organ(hu: np.ndarray) -> dict[str, Any]:
  # Images may be float32, whose own sum would be off for an organ of millions of voxels.
  mean = round(float(hu.mean(dtype=np.float64)), 1) if len(hu) else None
  return {"voxels": len(hu), "mean_hu": mean}
