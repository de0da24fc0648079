"""What must hold before a scan and its label are trusted."""

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
_RESAMPLED_BYTES = (
  4 + 2
)  # bytes: the interpolated image, float32, and the int16 that it is rounded to


def check_image(volume: Volume, path: object) -> None:
  """Refuses an image that holds NaN or infinity, or one value only.

  Args:
    volume: the image [X, Y, Z].
    path: its file, for the message.

  Raises:
    UserError: a value is not finite, or all are equal.
  """
  low, high = volume.array.min(), volume.array.max()  # NaN comes through both
  if not (np.isfinite(low) and np.isfinite(high)):
    bad = int(volume.array.size - np.isfinite(volume.array).sum())
    raise UserError(
      f"{path}: {bad} of {volume.array.size} voxels are NaN or infinite, an image must be finite; "
      "convert the scan again from its source"
    )
  if 0 < high - low < 2:
    raise UserError(
      f"{path}: values from {low:g} to {high:g} are no Hounsfield units, air is -1000 and bone "
      "1000; give the scan before it was normalised"
    )
  if low == high:
    raise UserError(
      f"{path}: all voxels are {low}, a constant image shows nothing; "
      "check the conversion that wrote it, or leave the scan out"
    )


def working_grid_within_memory(
  grid: Grid, spacing_mm: float, name: object, bytes_per_voxel: int = _RESAMPLED_BYTES
) -> Grid:
  """The `working_grid` of a scan, unless memory cannot hold what is made on it.

  Args:
    grid: the scan's own.
    spacing_mm: of the working grid.
    name: the scan, for the message.
    bytes_per_voxel: of the working grid, that are held at a time.

  Raises:
    UserError: it cannot, as where a header has a damaged spacing.
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
  """Names what differs between two canonical grids of one shape."""
  lines = []
  if image.spacing != label.spacing:
    lines.append(f"spacing {image.spacing} and {label.spacing} mm")
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

  The two are compared on canonical axes, so files that store the same voxels in another order
  of axes do agree.

  Args:
    image: the image's grid.
    label: the label's grid.
    names: their files, image first, for the message.
    kinds: what the two are, where not an image and its label, for the message.

  Returns:
    None where the grids agree to 0.001 mm; else what differs, by how many mm, and that it is
    harmless: no voxel moves by more than a tenth of the smallest voxel edge.

  Raises:
    UserError: other shapes, or voxels further apart than that.
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
