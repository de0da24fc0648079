"""Label maps from their files: which are there, whether they can be painted, and their organs."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.box import bounding_slices, crop_volume
from attn_unet_jax.volumes.nifti import read_label
from attn_unet_jax.volumes.nifti_folder import list_nifti_files
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Volume
from tfds_pancreas.abdomen.organs import ALL_ORGANS
from tfds_pancreas.painted_ct.map_anatomy import find_misplaced
from tfds_pancreas.painted_ct.organ_names import read_organs_of_values

SPLITS = ("train", "validation", "test")
# Value and organ of each label. No dict: `read_map` remembers its last result by its arguments.
OrgansOfValues = tuple[tuple[int, str], ...]
_LEAST_ML = 5.0  # of pancreas; of a healthy adult it is 40 to 150


class MapFile(NamedTuple):
  """The file of a label map, and what its values mean."""

  path: Path
  organs: OrgansOfValues


def find_maps(folder: Path) -> dict[str, MapFile]:
  """Finds the label maps of a folder, or of the folders in it, by their ids.

  Maps are the .nii and .nii.gz that are not hidden. Each folder of maps names its own values, so
  that maps of several sets can be painted together.

  Raises:
    UserError: there is none, two have one name, or the names of values are missing or unreadable.
  """
  folders = [folder]
  if folder.is_dir() and not list_nifti_files(folder):
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir()]
  found: dict[str, MapFile] = {}
  for place in folders:
    if files := list_nifti_files(place):
      organs = tuple(read_organs_of_values(place).items())
      for name, path in files.items():
        if name in found:
          raise UserError(f"{path}: {found[name].path} has the same name; rename one of them")
        found[name] = MapFile(path, organs)
  if not found:
    raise UserError(f"{folder}: no label map (.nii or .nii.gz) in it; name the folder of the maps")
  return found


def split_maps(ids: Sequence[str]) -> dict[str, list[str]]:
  """Splits maps into those for training, validation and testing.

  In the order of the SHA-256 of their ids, the first quarter is for testing (rounded, at least
  one), the next sixth for validation (rounded, at least one), the rest for training.

  Raises:
    UserError: fewer than three maps.
  """
  if len(ids) < 3:
    raise UserError(
      f"{len(ids)} label maps ({', '.join(sorted(ids))}): training, validation and test each need "
      "one of their own; add maps"
    )
  # By a hash of the id, the split does not follow a collection's own numbering, which may go by
  # scanner or by date.
  ordered = sorted(ids, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
  test = max(1, round(len(ids) / 4))
  validation = test + max(1, round(len(ids) / 6))
  parts = (ordered[validation:], ordered[test:validation], ordered[:test])
  return {split: sorted(part) for split, part in zip(SPLITS, parts, strict=True)}


# The paintings of a map follow each other, so it is read once for all of them.
@lru_cache(maxsize=1)
def read_map(path: Path, organs: OrgansOfValues) -> Volume:
  """Reads a label map as organs.

  Args:
    path: a NIfTI file of label values.
    organs: value and organ.

  Returns:
    uint8 [X, Y, Z] with values of ALL_ORGANS on canonical axes.

  Raises:
    UserError: the file is unreadable, has values without a name, no pancreas, or organs on the
      wrong side of the body.
  """
  volume = to_canonical(read_label(path))
  known = dict(organs)
  values = _list_values(volume.array)
  if unknown := [value for value in values if value not in known]:
    raise UserError(
      f"{path}: label values {unknown[:8]} have no name; name them where the others are named"
    )
  table = np.zeros(values[-1] + 1, np.uint8)
  for value in values:
    table[value] = ALL_ORGANS[known[value]]
  named = _crop_to_organs(volume, table)
  pancreas_ml = np.count_nonzero(named.array == ALL_ORGANS["pancreas"]) * named.voxel_volume_ml
  if pancreas_ml < _LEAST_ML:
    raise UserError(
      f"{path}: {pancreas_ml:.1f} ml of pancreas, at least {_LEAST_ML:g} ml are needed; leave the "
      "map out"
    )
  if misplaced := find_misplaced(named):
    raise UserError(
      f"{path}: {misplaced}; it is named by another list of values, or mirrored: name its values "
      "in a labels.json beside it, correct its affine, or leave the map out"
    )
  return named


def _list_values(array: np.ndarray) -> list[int]:
  """Returns the values of a label map, sorted."""
  # Counting is many times as fast as the sort of np.unique, and plane by plane it needs no second
  # volume of wide integers.
  found: set[int] = set()
  for plane in array.T:
    low = int(plane.min())
    counts = np.bincount((plane.astype(np.intp) - low).ravel())
    found.update((low + np.flatnonzero(counts)).tolist())
  return sorted(found)


def _crop_to_organs(volume: Volume, table: np.ndarray) -> Volume:
  """Crops a map to the columns that have an organ, and gives it values of ALL_ORGANS."""
  # All slices stay: where the scan ends is what a painting may show of the patient.
  if box := bounding_slices(volume.array > 0):
    volume = crop_volume(volume, (*box[:2], slice(0, volume.shape[2])))
  return Volume(table[volume.array], volume.affine)


def find_map_problems(maps: Mapping[str, MapFile]) -> dict[str, str]:
  """Returns what is wrong with each map that cannot be painted."""
  found = {}
  for name, file in maps.items():
    try:
      read_map(*file)
    except UserError as error:
      found[name] = str(error)
  return found
