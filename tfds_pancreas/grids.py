"""The grid a data set of scans is stored on (`native`, `iso2mm`, ...) and the way to it."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from attn_unet_jax.volumes.checks import working_grid_within_memory
from attn_unet_jax.volumes.resample import resample_labels, resample_volume
from attn_unet_jax.volumes.shear import straighten_image, straighten_labels
from attn_unet_jax.volumes.volume import Volume, round_spacing
from tfds_pancreas.records import Record, VolumeConfig

_NAME = re.compile(r"native|iso(\d+(?:\.\d+)?)mm")


@dataclass(eq=False)
class GridConfig(VolumeConfig):
  """A data set of real scans on one kind of grid.

  Attributes:
    spacing_mm: of the isotropic grid; None keeps each scan's own.
  """

  shards: int | None = None
  spacing_mm: float | None = None


def parse_grid_name(name: str) -> float | None:
  """Returns the spacing that a grid's name says: 2.0 for 'iso2mm', None for 'native'.

  Raises:
    ValueError: no such grid, or a spacing that rounds to 0.
  """
  match = _NAME.fullmatch(name)
  if not match or (match[1] and not round_spacing(float(match[1]))):
    raise ValueError(f"a grid is called native, or iso2mm for 2 mm, not {name!r}")
  return float(match[1]) if match[1] else None


def make_grid_config(
  name: str, kind: type[GridConfig] = GridConfig, about: str = "", grid: str = "", **fields: Any
) -> GridConfig:
  """Makes the config of a name such as 'native', 'iso2mm' or 'iso1.5mm'.

  Args:
    name: of the config.
    kind: the config's class.
    about: what is to be said of it before the grid.
    grid: the part of the name that names the grid; '' means all of it.
    fields: further fields of the class.

  Raises:
    ValueError: no grid is called so.
  """
  spacing = parse_grid_name(grid or name)
  voxels = f"{spacing:g} mm isotropic" if spacing else "each scan's own voxels"
  description = f"{about}, {voxels}." if about else f"{voxels[0].upper()}{voxels[1:]}."
  return kind(name=name, description=description, spacing_mm=spacing, **fields)


def make_record(case_id: str, image: Volume, label: Volume, spacing_mm: float | None) -> Record:
  """Makes the record of a scan and its label, both on one grid, which the image decides.

  The image is interpolated linearly, without a blur before; the label takes the nearest voxel, and
  of equally near ones the label of most, so that it lies where the image does.

  Args:
    case_id: the record's id.
    image: HU [X, Y, Z] on canonical axes.
    label: values that fit uint8, on the image's grid; its own affine is not used.
    spacing_mm: of the isotropic grid, or None to keep the voxels as they are.

  Raises:
    UserError: memory cannot hold that grid.
  """
  if spacing_mm:
    # The image's affine serves both, so that rounding in the label's header cannot shift the label.
    label = straighten_labels(Volume(label.array, image.affine), name="the scan")
    image = straighten_image(image, name="the scan")
    grid = working_grid_within_memory(image.grid, spacing_mm, "the scan")
    image, label = resample_volume(image, grid), resample_labels(label, grid)
  return {
    "id": case_id,
    "image": _quantise(image.array, np.int16),
    "label": _quantise(label.array, np.uint8),
    "affine": image.affine,
  }


def _quantise(values: np.ndarray, dtype: type[np.integer]) -> np.ndarray:
  """Returns values [X, Y, Z] rounded and clipped to a type, with Z fastest in memory."""
  # Volumes come with X fastest. Turned slab by slab, as the processor's cache likes it, this takes
  # a fifth of the time, and one slab is all that exists as float.
  stored = np.empty(values.shape, dtype)
  limits = np.iinfo(dtype)
  for y in range(values.shape[1]):
    slab = values[:, y].T
    if slab.dtype != dtype:
      slab = np.clip(np.rint(slab), limits.min, limits.max)
    stored[:, y] = np.ascontiguousarray(slab, dtype).T
  return stored
