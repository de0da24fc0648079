"""Refuses scans and labels that cannot be trusted."""

from __future__ import annotations

import math

import numpy as np

from attn_unet_jax.runtime import memory
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.orientation import canonical_grid
from attn_unet_jax.volumes.resample import working_grid
from attn_unet_jax.volumes.volume import Grid, Volume, corner_distance_mm

# Below this share of the smallest voxel edge a displacement cannot move a label to another voxel.
_HARMLESS_SHARE = 0.1
_IMAGE_AND_LABEL = ("image", "label")
# Of a voxel: the interpolated image, float32, and the int16 that it is rounded to.
_RESAMPLED_BYTES = 4 + 2


def check_image(volume: Volume, path: object) -> None:
  """Refuses an image that holds NaN or infinity, or one value only, which no reason makes good.

  Args:
    volume: the image [X, Y, Z].
    path: its file, for the message.

  Raises:
    UserError: a value is not finite, or all are equal.
  """
  # NaN comes through both, so an image without NaN and infinity is passed over twice and no more.
  low, high = float(volume.array.min()), float(volume.array.max())
  if not (np.isfinite(low) and np.isfinite(high)):
    bad = int(volume.array.size - np.isfinite(volume.array).sum())
    raise UserError(
      f"{path}: {bad} of {volume.array.size} voxels are NaN or infinite, an image must be finite; "
      "convert the scan again from its source"
    )
  if low == high:
    raise UserError(
      f"{path}: all voxels are {low:g}, a constant image shows nothing; "
      "check the conversion that wrote it, or leave the scan out"
    )


def check_swapped(image: Volume, label: Volume, names: tuple[object, object]) -> None:
  """Refuses labels in the place of an image, and an image in the place of its labels.

  Args:
    image: what should be the image.
    label: what should be its label.
    names: their files, image first, for the message.

  Raises:
    UserError: they were swapped.
  """
  # Fat and air lie below 0 HU, and labels of organs do not.
  if image.array.min() >= 0 > label.array.min() and image.array.max() < label.array.max():
    raise UserError(
      f"{names[0]}: holds labels, and {names[1]} an image: the folders were swapped; exchange the "
      "names of the two"
    )


def working_grid_within_memory(
  grid: Grid, spacing_mm: float, name: object, bytes_per_voxel: int = _RESAMPLED_BYTES
) -> Grid:
  """Returns the `working_grid` of a scan and refuses one that memory cannot hold.

  Args:
    grid: the scan's own grid.
    spacing_mm: the spacing of the working grid.
    name: the scan, for the message.
    bytes_per_voxel: bytes held at a time for each voxel of the working grid.

  Raises:
    UserError: memory cannot hold it, for instance because a header's spacing is damaged.
  """
  working = working_grid(grid, spacing_mm)
  field = " x ".join(f"{size:.4g}" for size in grid.field_mm)
  memory.require_memory(
    math.prod(working.shape) * bytes_per_voxel,
    f"{name}: voxels of {spacing_mm:g} mm in its field of {field} mm",
    "use a larger spacing, or correct the scan's header",
  )
  return working


def _describe_differences(image: Grid, label: Grid) -> list[str]:
  """Describes what differs between two canonical grids of one shape."""
  lines = []
  if image.spacing != label.spacing:
    lines.append(f"spacing {image.spacing} and {label.spacing} mm")
  # Rounding may put a cosine just above 1, where arccos is NaN.
  cosines = np.clip((image.directions * label.directions).sum(axis=0), -1, 1)
  angle = float(np.degrees(np.arccos(cosines.min())))
  if angle > 0.01:
    lines.append(f"axes turned by {angle:.2f} degrees")
  origin = float(np.linalg.norm(image.affine[:3, 3] - label.affine[:3, 3]))
  if origin > 1e-3:
    lines.append(f"first voxel {origin:.3f} mm apart")
  return lines


def check_pair(
  image: Grid, label: Grid, names: tuple[object, object], kinds: tuple[str, str] = _IMAGE_AND_LABEL
) -> str | None:
  """Refuses a label that does not lie on its image.

  Both grids are compared on canonical axes, since files may store the same voxels in another order
  of axes.

  Args:
    image: the image's grid.
    label: the label's grid.
    names: their files, image first, for the message.
    kinds: what to call the two in the message.

  Returns:
    None where the grids agree to 0.001 mm. Otherwise a line that says what differs and by how many
    mm, and that it is harmless: no voxel moves by more than a tenth of the smallest voxel edge.

  Raises:
    UserError: the shapes differ, or voxels lie further apart than that.
  """
  one, other = kinds
  pair = f"{names[1]} and its {one} {names[0]}"
  image, label = canonical_grid(image), canonical_grid(label)
  if image.shape != label.shape:
    raise UserError(
      f"{pair}: shapes {label.shape} and {image.shape} (canonical axes) differ, a {other} must "
      f"have its {one}'s; resample the {other} onto the {one}, or pair it with the right one"
    )
  distance = corner_distance_mm(image, label)
  # Headers store float32 or rounded text, which costs up to about 1e-4 mm.
  if distance <= 1e-3:
    return None
  what = "; ".join(_describe_differences(image, label)) or "affines differ"
  limit = _HARMLESS_SHARE * min(image.spacing)
  if distance <= limit:
    return f"{pair}: voxels up to {distance:.4f} mm apart ({one}'s then {other}'s {what}): harmless"
  raise UserError(
    f"{pair}: voxels up to {distance:.3f} mm apart ({one}'s then {other}'s {what}), at most "
    f"{limit:.3f} mm is harmless; if the voxels do line up, save the {other} with the {one}'s "
    "header"
  )
