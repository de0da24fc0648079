"""Label maps from their files: which are there, whether they can be painted, and their organs."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.box import bounding_slices, crop_volume
from attn_unet_jax.volumes.nifti import read_label
from attn_unet_jax.volumes.nifti_folder import list_nifti_files
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Volume
from tfds_pancreas.abdomen.organs import ALL_ORGANS

_LEAST_ML = 5.0  # of pancreas; of a healthy adult it is 40 to 150
SPLITS = ("train", "validation", "test")


def find_maps(folder: Path) -> dict[str, Path]:
  """Map id -> file, of every .nii and .nii.gz of a folder; hidden files are left out.

  Raises:
    UserError: there is none, or two have one name.
  """
  found = list_nifti_files(folder)
  if not found:
    raise UserError(f"{folder}: no label map (.nii or .nii.gz) in it; name the folder of the maps")
  return found


def split_maps(ids: Sequence[str]) -> dict[str, list[str]]:
  """Which maps are trained on, validated on and tested on.

  In the order of the SHA-256 of their ids, the first quarter is for testing (rounded, at least
  one), the next sixth for validation (the same), the rest for training. All paintings of a map are
  on its side.

  Raises:
    UserError: fewer than three maps.
  """
  if len(ids) < 3:
    raise UserError(
      f"{len(ids)} label maps ({', '.join(sorted(ids))}): training, validation and test each need "
      "one of their own; add maps"
    )
  ordered = sorted(ids, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
  test = max(1, round(len(ids) / 4))
  trained = test + max(1, round(len(ids) / 6))
  parts = (ordered[trained:], ordered[test:trained], ordered[:test])
  return {split: sorted(part) for split, part in zip(SPLITS, parts, strict=True)}


@lru_cache(maxsize=1)
def read_map(path: Path, organs: tuple[tuple[int, str], ...]) -> Volume:
  """A label map as organs.

  Args:
    path: a NIfTI file of label values.
    organs: value and organ.

  Returns:
    uint8 [X, Y, Z] with values of ALL_ORGANS on canonical axes.

  Raises:
    UserError: the file is unreadable, has values without a name, or no pancreas.
  """
  volume = to_canonical(read_label(path))
  known = dict(organs)
  values = _values(volume.array)
  if unknown := [value for value in values if value not in known]:
    raise UserError(
      f"{path}: label values {unknown[:8]} have no name; name them where the others are named"
    )
  table = np.zeros(values[-1] + 1, np.uint8)
  for value in values:
    table[value] = ALL_ORGANS[known[value]]
  named = _cropped(volume, table)
  there = np.count_nonzero(named.array == ALL_ORGANS["pancreas"]) * named.voxel_volume_ml
  if there < _LEAST_ML:
    raise UserError(
      f"{path}: {there:.1f} ml of pancreas, at least {_LEAST_ML:g} ml are needed; leave the map out"
    )
  return named


def _values(array: np.ndarray) -> list[int]:
  """The values of a label map, sorted; many times as fast as np.unique, plane by plane."""
  found: set[int] = set()
  for plane in array.T:
    low = int(plane.min())
    found.update(
      (low + np.flatnonzero(np.bincount((plane.astype(np.intp) - low).ravel()))).tolist()
    )
  return sorted(found)


def _cropped(volume: Volume, table: np.ndarray) -> Volume:
  """A map in values of ALL_ORGANS, cut across to the columns that have an organ; keeps slices."""
  if box := bounding_slices(volume.array > 0):
    volume = crop_volume(volume, (*box[:2], slice(0, volume.shape[2])))
  return Volume(table[volume.array], volume.affine)


def problems_of(maps: Mapping[str, Path], organs: tuple[tuple[int, str], ...]) -> dict[str, str]:
  """What is wrong with each map that cannot be painted."""
  found = {}
  for name, path in maps.items():
    try:
      read_map(path, organs)
    except UserError as error:
      found[name] = str(error)
  return found
