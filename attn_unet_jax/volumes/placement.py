"""Checks that a file's voxels lie where they can lie: their size, and what its header says twice.

A finding of the kind `geometry` and the severity `error` is one that the user may accept:
`--accept=geometry`.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from attn_unet_jax.volumes.finding import Finding
from attn_unet_jax.volumes.nifti_header import open_image
from attn_unet_jax.volumes.shear import MAX_TILT_DEGREES, shear_degrees
from attn_unet_jax.volumes.volume import Grid, corner_distance_mm

# Far beyond what scanners of people reconstruct, and so a spacing in another unit.
_POSSIBLE_MM = (0.05, 50.0)
# The longest side of a person's field of view. A short one counts only where it has many voxels: a
# crop has few.
_POSSIBLE_FIELD_MM = (60.0, 2500.0)
_MANY_VOXELS = 128
# Two forms of a header that differ by less give an organ the same size.
_SAME_SPACING = 0.02
_TURNED_DEGREES = 45.0


def spacing_findings(grid: Grid, name: object) -> Iterator[Finding]:
  """Yields an error if the voxels, or the field, of the file `name` have a size that no CT has."""
  low, high = _POSSIBLE_MM
  odd = [mm for mm in grid.spacing if not low <= mm <= high]
  if odd:
    spacing = " x ".join(f"{mm:g}" for mm in grid.spacing)
    yield Finding(
      "error",
      "geometry",
      f"{name}: voxels of {spacing} mm, a CT has {low:g} to {high:g}; its unit may be another than "
      "mm: correct the spacing in its header",
    )
    return
  side = max(grid.field_mm)
  is_crop = sum(size >= _MANY_VOXELS for size in grid.shape) < 2
  if side > _POSSIBLE_FIELD_MM[1] or (side < _POSSIBLE_FIELD_MM[0] and not is_crop):
    field = " x ".join(f"{mm:g}" for mm in grid.field_mm)
    yield Finding(
      "error",
      "geometry",
      f"{name}: a field of view of {field} mm, which is not that of a person; its unit may be "
      "another than mm: correct the spacing in its header",
    )


def shear_findings(grid: Grid, name: object) -> Iterator[Finding]:
  """Yields a warning if the axes of the file `name` are sheared, an error if no gantry tilts so."""
  degrees = shear_degrees(grid)
  seen = f"{name}: axes are {degrees:.1f} degrees from perpendicular"
  if degrees > MAX_TILT_DEGREES:
    yield Finding(
      "error",
      "geometry",
      f"{seen}, further than a gantry tilts (30); its affine is damaged: convert the scan again",
    )
  elif degrees:
    yield Finding(
      "warning",
      "sheared",
      f"{seen}, as a tilted gantry gives; the network sees it on straight axes, and its mask lies "
      "on the scan's own slices",
    )


def header_findings(path: Path) -> Iterator[Finding]:
  """Yields what leaves the place of the voxels of a readable NIfTI file in doubt.

  An error if its sform and its qform give organs another size or another side; a warning if they
  only give them another place, or if there is neither.
  """
  image = open_image(path)
  header = image.header
  if not (header["sform_code"] or header["qform_code"]):
    yield Finding(
      "warning",
      "orientation",
      f"{path}: neither sform nor qform is set, so left and right are a guess "
      f"({''.join(nib.aff2axcodes(header.get_best_affine()))}); convert the scan again",
    )
  elif header["sform_code"] and header["qform_code"]:
    yield from _compare_forms(path, header)


def _compare_forms(path: Path, header: Any) -> Iterator[Finding]:
  shape = header.get_data_shape()[:3]
  try:
    # Numbers of a damaged form may overflow on the way to where they are refused.
    with np.errstate(all="ignore"):
      sform, qform = Grid(shape, header.get_sform()), Grid(shape, header.get_qform())
  except (ValueError, nib.spatialimages.HeaderDataError):
    return  # the reader has reported a damaged sform; a damaged qform beside it is not used
  distance = corner_distance_mm(sform, qform)
  # Half a voxel: below it both forms put a label on the same voxels.
  if distance <= 0.5 * min(sform.spacing):
    return
  apart = f"{path}: sform and qform put voxels up to {distance:.2f} mm apart"
  differing = _describe_difference(sform, qform)
  if differing:
    yield Finding(
      "error",
      "geometry",
      f"{apart} ({differing}); which is right cannot be known: correct one of them, the sform is "
      "the one that is taken",
    )
  else:
    yield Finding(
      "warning",
      "orientation",
      f"{apart}; the sform is taken here, other programs may take the qform: make them equal",
    )


def _describe_difference(sform: Grid, qform: Grid) -> str:
  """Describes how two grids give an organ another size, or another side; '' if they do not."""
  said = []
  # A qform has no shear. Beside a sheared sform, some programs write the distance of the slices
  # straight up, and others that along the slope.
  between = sform.directions.T @ sform.directions - np.eye(3)
  slope = float(np.sqrt(1 - min(0.99, float(np.abs(between).max())) ** 2))
  ratios = np.divide(sform.spacing, qform.spacing)
  if max(ratios.max(), 1 / ratios.min()) > (1 + _SAME_SPACING) / slope:
    spacings = (" x ".join(f"{mm:g}" for mm in one.spacing) for one in (sform, qform))
    said.append("voxels of {} and of {} mm".format(*spacings))
  # Rounding may put a cosine just above 1, where arccos is NaN.
  cosines = np.clip((sform.directions * qform.directions).sum(axis=0), -1, 1)
  angle = float(np.degrees(np.arccos(cosines.min())))
  mirrored = np.linalg.det(sform.directions) * np.linalg.det(qform.directions) < 0
  if mirrored:
    said.append("mirrored")
  elif angle > _TURNED_DEGREES:
    said.append(f"axes turned by {angle:.0f} degrees")
  return ", ".join(said)
