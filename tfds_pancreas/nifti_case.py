"""Cases of a collection whose scans and labels are NIfTI files with headers that can be trusted."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti_folder import list_nifti_files, read_pair
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Volume
from tfds_pancreas.checked_case import CheckedCase, Pair
from tfds_pancreas.checks import flip_problem, label_figures


@dataclass(frozen=True)
class NiftiCase:
  """The files of one case; None where one is missing."""

  id: str
  image: Path | None
  label: Path | None


@dataclass(frozen=True)
class Meaning:
  """What the label values of a collection mean.

  Attributes:
    labels: name and value, as in the records.
    replaced: values of the files that become others in the records.
    may_be_empty: whether a scan without any label is as it should be.
  """

  labels: Mapping[str, int]
  replaced: Mapping[int, int]
  may_be_empty: bool = False


def find_pairs(root: Path) -> list[NiftiCase]:
  """Every name in `imagesTr` or `labelsTr` of a folder, sorted.

  Raises:
    UserError: two files have one name, or there is none at all.
  """
  images, labels = list_nifti_files(root / "imagesTr"), list_nifti_files(root / "labelsTr")
  names = sorted(images.keys() | labels.keys())
  if not names:
    raise UserError(f"{root}: no imagesTr/NAME.nii.gz with labelsTr/NAME.nii.gz in it")
  return [NiftiCase(name, images.get(name), labels.get(name)) for name in names]


def read_case(files: NiftiCase, *, meaning: Meaning) -> CheckedCase:
  """Reads and checks a case; whatever is wrong with it ends in its `problems`."""
  case = CheckedCase(files.id)
  if files.image is None or files.label is None:
    case.problems.append(_missing(files))
    return case
  try:
    image, label, note = read_pair(files.image, files.label)
  except UserError as error:
    case.problems.append(str(error))
    return case
  case.figures = {
    "shape": image.shape,
    "spacing_mm": image.spacing,
    "orientation": image.orientation,
    **({"note": note} if note else {}),
  }
  label = Volume(replaced(label.array, meaning.replaced), label.affine)
  fill(case, to_canonical(image), to_canonical(label), meaning)
  return case


def fill(case: CheckedCase, image: Volume, label: Volume, meaning: Meaning) -> None:
  """Adds an aligned canonical pair to a case, with its figures and what is wrong with the values.

  Headers have the word on where a label lies: a flip that fits better is reported as a `doubt`.
  """
  inside = label.array != 0
  values, hu = label.array[inside], image.array[inside]
  if problem := _value_problem(np.unique(values), meaning):
    case.problems.append(problem)
    return
  case.pair = Pair(image, Volume(label.array.astype(np.uint8, copy=False), label.affine))
  case.figures["labels"] = {
    name: _figures(hu[values == value]) for name, value in meaning.labels.items() if value
  }
  if len(values):
    case.figures |= label_figures(image.array, inside)
    if doubt := flip_problem(case.figures["flip_scores"]):
      case.figures["doubt"] = doubt


def _missing(files: NiftiCase) -> str:
  there = files.image or files.label
  if there is None:
    return "no image and no label"
  return f"no {'label' if files.image else 'image'} of this name, there is only {there}"


def replaced(label: np.ndarray, by: Mapping[int, int]) -> np.ndarray:
  """A label map with some values changed into others."""
  changed = label.copy() if by else label
  for old, new in by.items():
    changed[label == old] = new
  return changed


def _value_problem(present: np.ndarray, meaning: Meaning) -> str:
  named = {value: name for name, value in meaning.labels.items()}
  unnamed = [int(value) for value in present if int(value) not in named]
  if unnamed:
    return f"label values {unnamed[:8]} have no names; named are {_listed(meaning.labels)}"
  return "" if len(present) or meaning.may_be_empty else "the label is empty"


def _listed(labels: Mapping[str, int]) -> str:
  return ", ".join(f"{value} {name}" for name, value in labels.items())


def _figures(hu: np.ndarray) -> dict[str, Any]:
  mean = round(float(hu.mean(dtype=np.float64)), 1) if len(hu) else None
  return {"voxels": len(hu), "mean_hu": mean}
