"""Labelled scans as a folder of NIfTI files, the layout of the Medical Segmentation Decathlon.

`imagesTr/NAME.nii.gz` with `labelsTr/NAME.nii.gz`; a `dataset.json` beside them may name the
label values. Hidden files (macOS writes `._NAME`) do not count.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import read_json
from attn_unet_jax.volumes.checks import check_image, check_pair
from attn_unet_jax.volumes.nifti import read_label, read_nifti
from attn_unet_jax.volumes.orientation import from_canonical, to_canonical
from attn_unet_jax.volumes.volume import Volume

_SUFFIXES = (".nii.gz", ".nii")


def list_nifti_files(folder: Path) -> dict[str, Path]:
  """Case id -> file, for every `.nii` and `.nii.gz` of a folder; hidden files are left out.

  Raises:
    UserError: two files have one name.
  """
  if not folder.is_dir():
    return {}
  found: dict[str, Path] = {}
  for path in sorted(folder.iterdir()):
    if is_nifti(path):
      name = nifti_stem(path)
      if name in found:
        raise UserError(f"{path}: {found[name].name} has the same name; remove one of them")
      found[name] = path
  return found


def is_nifti(path: Path) -> bool:
  """Whether a file counts by its name; `A.NII.GZ` does, hidden ones do not."""
  return path.name.lower().endswith(_SUFFIXES) and not path.name.startswith(".")


def nifti_stem(path: Path) -> str:
  """`scan.nii.gz` -> `scan`."""
  for suffix in _SUFFIXES:
    if path.name.lower().endswith(suffix):
      return path.name[: -len(suffix)]
  return path.name


def read_label_names(root: Path) -> Mapping[str, int] | None:
  """Name -> label value from the folder's `dataset.json`; None without one, or without labels.

  Nothing else of that file is read, so scans may be added and removed freely.

  Raises:
    UserError: it is not readable.
  """
  path = root / "dataset.json"
  if not path.is_file():
    return None
  try:
    labels = read_json(path).get("labels", {})
    # The Decathlon writes value -> name; its successors write name -> value.
    pairs = [(v, k) if str(k).isdigit() else (k, v) for k, v in labels.items()]
    return {str(name): int(value) for name, value in pairs} or None
  except (ValueError, TypeError, AttributeError, OverflowError) as error:
    raise UserError(f'{path}: not readable as JSON with "labels" ({error})') from None


def read_pair(image_path: Path, label_path: Path) -> tuple[Volume, Volume, str | None]:
  """An image in HU, its label on the image's own axes, and what differs harmlessly between them.

  Raises:
    UserError: a file is unreadable, the image is no CT, or the two do not lie on one grid.
  """
  image, label = read_nifti(image_path), read_label(label_path)
  check_image(image, image_path)
  note = check_pair(image.grid, label.grid, (image_path, label_path))
  return image, from_canonical(to_canonical(label).array, image.grid), note
