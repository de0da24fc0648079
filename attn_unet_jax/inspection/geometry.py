"""Checks that a file's geometry is that of an abdominal CT."""

from collections.abc import Iterator, Sequence

import numpy as np

from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.cases.prepare import working_grid_for
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.finding import Finding
from attn_unet_jax.volumes.orientation import canonical_grid
from attn_unet_jax.volumes.placement import shear_findings, spacing_findings
from attn_unet_jax.volumes.shear import straight_grid
from attn_unet_jax.volumes.volume import Grid

# From a small reconstructed field (100 mm in 512 pixels) to the thick slices of old scanners.
_SPACING_MM = (0.2, 10.0)
# The bore of a scanner is 700 to 850 mm wide; along Z a scan may hold the whole body.
_FIELD_MM = ((100.0, 800.0), (100.0, 800.0), (50.0, 2300.0))
_ANISOTROPY = 5.0  # slices of 5 mm with pixels of 1 mm or less
_OBLIQUE_DEGREES = 1.0  # less comes from rounded direction cosines


def geometry_findings(grid: Grid, name: str) -> Iterator[Finding]:
  """Yields what is odd about the grid of the file `name`."""
  canonical = canonical_grid(grid)
  # What many programs write for an array without geometry. A resampled scan may have spacings of
  # 1 mm, but its origin is not 0.
  if np.array_equal(np.abs(grid.affine[:3, :3]), np.eye(3)) and not grid.affine[:3, 3].any():
    yield Finding(
      "warning",
      "no_geometry",
      f"{name}: spacing 1 x 1 x 1 mm from an origin of 0, as if the header was lost; organs are "
      "then trained at a wrong size: convert the scan again, or set its spacing",
    )
  yield from _size_findings(canonical, name)
  yield from _axis_findings(canonical, name)


def patch_findings(
  grid: Grid, patch: Sequence[int], spacing_mm: float, name: str
) -> Iterator[Finding]:
  """Yields a note if a training patch is larger than the scan."""
  # On canonical axes, as training crops: a file may store its axes in another order.
  field = canonical_grid(grid).field_mm
  wanted = [size * spacing_mm for size in patch]
  small = [axis for axis, has, asks in zip("XYZ", field, wanted, strict=True) if has < asks]
  if small:
    yield Finding(
      "note",
      "patch",
      f"{name}: the field of {_format_mm(field)} is smaller than the patch of {_format_mm(wanted)} "
      f"along {', '.join(small)}; the rest of a patch is filled with the scan's lowest value, "
      "unlabelled; a smaller config.data.patch is cheaper",
    )


def memory_findings(grid: Grid, options: DataOptions, name: str) -> Iterator[Finding]:
  """Yields an error if memory cannot hold the scan on its working grid."""
  try:
    working_grid_for(straight_grid(grid), options, name)
  except UserError as error:
    yield Finding("error", "memory", str(error))


def _size_findings(grid: Grid, name: str) -> Iterator[Finding]:
  field, low, high = grid.field_mm, *_SPACING_MM
  odd = [s for s in grid.spacing if not low <= s <= high]
  impossible = list(spacing_findings(grid, name))
  yield from impossible
  if odd and not impossible:
    yield Finding(
      "warning",
      "spacing",
      f"{name}: a spacing of {odd[0]:g} mm ({_format_mm(grid.spacing)}), a CT has {low:g} to "
      f"{high:g}; is its unit mm?",
    )
  # The grid is canonical, so X is the patient's left to right whatever the file's order of axes.
  for axis, size, (least, most) in zip("XYZ", field, _FIELD_MM, strict=True):
    if not least <= size <= most:
      yield Finding(
        "warning",
        "field",
        f"{name}: {size:.0f} mm along {axis} ({_format_mm(field)}), a CT of the abdomen has "
        f"{least:.0f} to {most:.0f}; a crop, or a wrong spacing ({_format_mm(grid.spacing)})",
      )
  ratio = max(grid.spacing) / min(grid.spacing)
  if ratio >= _ANISOTROPY:
    yield Finding(
      "note",
      "anisotropy",
      f"{name}: voxels of {_format_mm(grid.spacing)} are {ratio:.1f} times as long as wide; "
      "resampling interpolates between thick slices",
    )


def _axis_findings(grid: Grid, name: str) -> Iterator[Finding]:
  sheared = list(shear_findings(grid, name))
  yield from sheared
  # On canonical axes the diagonal has the cosines of each axis with the patient's own.
  # Rounding may lead a cosine beyond 1, of which arccos is NaN.
  turned = float(np.degrees(np.arccos(np.clip(np.diag(grid.directions).min(), -1, 1))))
  if turned > _OBLIQUE_DEGREES and not sheared:
    yield Finding(
      "note",
      "oblique",
      f"{name}: axes are turned by {turned:.1f} degrees against the patient's; training and "
      "prediction use the scan's own axes, so there is nothing to do",
    )


def _format_mm(values: Sequence[float]) -> str:
  return " x ".join(f"{value:.4g}" for value in values) + " mm"
