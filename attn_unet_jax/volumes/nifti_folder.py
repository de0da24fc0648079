"""Finds and reads labelled scans in a folder with the Medical Segmentation Decathlon's layout.

The folder holds `imagesTr/NAME.nii.gz` and `labelsTr/NAME.nii.gz`. A `dataset.json` beside them may
name the label values. Hidden files do not count: macOS writes a `._NAME` beside each file of an
archive.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import read_json
from attn_unet_jax.volumes.checks import check_pair, check_swapped
from attn_unet_jax.volumes.judge import Judge
from attn_unet_jax.volumes.nifti import read_label, read_nifti
from attn_unet_jax.volumes.orientation import from_canonical, to_canonical
from attn_unet_jax.volumes.volume import Volume

_SUFFIXES = (".nii.gz", ".nii")
_FIRST_CHANNEL = "_0000"
_STRICT = Judge()


def list_nifti_files(folder: Path, *, any_name: bool = False) -> dict[str, Path]:
  """Lists the `.nii` and `.nii.gz` files of a folder by case id; hidden files are left out.

  Args:
    folder: where.
    any_name: whether names are taken that cannot be ids of a data set's cases.

  Returns:
    case id -> file, sorted; empty where there is no such folder.

  Raises:
    UserError: two files have one case id, such as `a.nii` and `a.nii.gz`; or a name is not UTF-8.
  """
  if not folder.is_dir():
    return {}
  found: dict[str, Path] = {}
  for path in sorted(folder.iterdir()):
    if is_nifti(path):
      name = nifti_stem(path)
      if name in found:
        raise UserError(f"{path}: {found[name].name} has the same name; remove one of them")
      if not any_name and (fault := find_name_fault(path)):
        raise UserError(fault)
      found[name] = path
  return found


def find_name_fault(path: Path) -> str:
  """Returns why a file's name cannot be the id of a data set's case; '' if it can."""
  try:
    path.name.encode()
  except UnicodeEncodeError:
    # Folds and records go by the bytes of an id in UTF-8.
    return f"{path}: its name is not UTF-8, which the id of a case must be; rename it"
  return ""


def is_nifti(path: Path) -> bool:
  """Returns whether a file's name says that it is a visible NIfTI file; `A.NII.GZ` is one."""
  return path.name.lower().endswith(_SUFFIXES) and not path.name.startswith(".")


def nifti_stem(path: Path) -> str:
  """Returns a file's name without the suffix of NIfTI: `scan.nii.gz` -> `scan`."""
  for suffix in _SUFFIXES:
    if path.name.lower().endswith(suffix):
      return path.name[: -len(suffix)]
  return path.name


def read_label_names(root: Path) -> Mapping[str, int] | None:
  """Reads the names of label values from the folder's `dataset.json`.

  Nothing else of that file is read, so scans may be added and removed freely.

  Returns:
    name -> label value; None where there is no such file, or no labels in it.

  Raises:
    UserError: it is not readable, or a name stands for several values, a region of nnU-Net.
  """
  path = root / "dataset.json"
  if not path.is_file():
    return None
  try:
    labels = read_json(path).get("labels", {})
    # The Decathlon writes {"1": "pancreas"}, nnU-Net and others after it {"pancreas": 1}.
    pairs = [(v, k) if str(k).isdigit() else (k, v) for k, v in labels.items()]
    return {str(name): _read_value(name, value, path) for name, value in pairs} or None
  except (ValueError, TypeError, AttributeError, OverflowError) as error:
    raise UserError(f'{path}: not readable as JSON with "labels" ({error})') from None


def _read_value(name: object, value: Any, path: Path) -> int:
  """Reads the value of a name; a list of one is that value."""
  if isinstance(value, list) and len(value) != 1:
    values = "+".join(map(str, value))
    raise UserError(
      f"{path}: {name!r} is a region, of the values {value}; regions may overlap, and a voxel has "
      "one class here: name each value once, as in "
      '"labels": {"background": 0, "pancreas": 1, "tumour": 2}, and merge values by '
      f"--config.data.labels='{name}={values or 'VALUE+VALUE'}'"
    )
  number = int(value[0] if isinstance(value, list) else value)
  if isinstance(value, float) and number != value:
    raise ValueError(f"{name!r} is {value}, not a whole number")
  return number


def explain_channel_names(alone: Iterable[str], partners: Collection[str]) -> str:
  """Explains names that lack a partner because they end in nnU-Net's number of a channel.

  Args:
    alone: names without a partner.
    partners: the names in the other folder.

  Returns:
    text for the end of a message; '' where names do not differ by that number.
  """
  for name in sorted(alone):
    stem = name.removesuffix(_FIRST_CHANNEL)
    if stem != name and stem in partners:
      return (
        f"; {_FIRST_CHANNEL} is nnU-Net's number of a channel, which the names of labels do not "
        f"have: rename {name} to {stem}, and so on (further channels, such as {stem}_0001, are "
        "not read: take them out)"
      )
  return ""


class LabelledScan(NamedTuple):
  """An image and its label.

  Attributes:
    image: HU [X, Y, Z].
    label: on the image's own axes.
    note: a line about a harmless difference between the grids of the two; None if there is none.
    doubts: lines about what the judge accepted, or warns of.
  """

  image: Volume
  label: Volume
  note: str | None
  doubts: list[str]


def read_pair(image_path: Path, label_path: Path, judge: Judge = _STRICT) -> LabelledScan:
  """Reads an image and its label, and checks that both lie on one grid.

  Raises:
    UserError: a file is unreadable, the image is no CT, the two were swapped, or they do not lie on
      one grid.
  """
  image, label = read_nifti(image_path), read_label(label_path)
  # First of all: of labels in an image's place the judge would only say that they are no HU.
  check_swapped(image, label, (image_path, label_path))
  doubts = judge.judge_scan(image, image_path, image_path)
  note = check_pair(image.grid, label.grid, (image_path, label_path))
  # The label's file may store its axes in another order than the image's.
  label = from_canonical(to_canonical(label).array, image.grid)
  return LabelledScan(image, label, note, doubts)
