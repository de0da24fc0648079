"""One painting of a label map: a view of it, deformed, completed and painted.

The recipe is SynthSeg's (Billot et al. 2023, Medical Image Analysis 86:102789): images are
generated from label maps of real anatomies, with deformation, intensities, blur, resolution and
noise drawn at random, so that a network trained on them meets a real scan as one variation more.
Here densities are drawn around those of the tissues on CT instead of freely, what a map does not
name is drawn first, and there is no bias field, which CT does not have.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from attn_unet_jax.volumes.box import bounding_slices
from attn_unet_jax.volumes.resample import resample_labels, working_grid
from attn_unet_jax.volumes.volume import Grid, Volume
from tfds_pancreas.abdomen.organs import ALL_ORGANS
from tfds_pancreas.abdomen.paint import ScanLook, paint_ct
from tfds_pancreas.painted_ct.map_completion import complete_map
from tfds_pancreas.painted_ct.map_deformation import (
  DeformationSpread,
  draw_source_indices,
  refine_indices,
  sample_labels,
)

DRAWN_MM = 2.0  # what a map lacks is drawn on voxels of at least this size
# Wider than that of phantoms: a painting is to meet the scans of other hospitals.
LOOK = ScanLook(
  spread=1.4,
  between_phases=True,
  texture=(0.5, 1.6),
  clefts=(0.2, 2.2),
  blur_mm=(0.6, 2.0),
  noise_hu=(4.0, 24.0),
)
DEFORMATION = DeformationSpread()
_NAMES = {value: name for name, value in ALL_ORGANS.items()}
Range = tuple[float, float]


@dataclass(frozen=True)
class PaintingRecipe:
  """The ways in which paintings of a map may differ.

  Attributes:
    seed: paintings are decided by it, the map's id and their number, and by nothing else.
    pixel_mm: range of the pixels' size; None keeps the map's.
    slice_mm: range of the slices' distance; None keeps the map's.
    deformation: of the anatomy.
    look: of the scan.
  """

  seed: int = 0
  pixel_mm: Range | None = None
  slice_mm: Range | None = None
  deformation: DeformationSpread = DEFORMATION
  look: ScanLook = LOOK


def paint_map(
  organs: Volume, map_id: str, number: int, recipe: PaintingRecipe
) -> tuple[Volume, Volume]:
  """Paints a map for the `number`-th time.

  Args:
    organs: uint8 with values of ALL_ORGANS on canonical axes, the pancreas among them.
    map_id: the map's id.
    number: of the painting.
    recipe: how paintings may differ.

  Returns:
    image int16 HU and labels uint8 [X, Y, Z] on one grid.
  """
  rng = np.random.default_rng((recipe.seed, _hash_id(map_id), number))
  view = draw_view(rng, organs, recipe)
  labels = draw_labels(rng, organs, view, recipe.deformation)
  key = tuple(int(part) for part in rng.integers(2**31, size=4))
  image = paint_ct(labels, key, spacing=view.spacing, names=_NAMES, look=recipe.look)
  return Volume(image, view.affine), Volume(labels, view.affine)


def draw_labels(
  rng: np.random.Generator, organs: Volume, view: Grid, deformation: DeformationSpread
) -> np.ndarray:
  """Draws the map in a view, deformed and completed: uint8 [X, Y, Z]."""
  # Nothing that is drawn has detail below DRAWN_MM, so it is drawn on coarser voxels to save time.
  coarse = working_grid(view, [max(step, DRAWN_MM) for step in view.spacing])
  middle = np.argwhere(organs.array == ALL_ORGANS["pancreas"]).mean(0)
  centre = organs.affine[:3, :3] @ middle + organs.affine[:3, 3]
  indices = draw_source_indices(rng, deformation, organs.grid, coarse, centre)
  seen = sample_labels(organs.array, indices)
  given = {_NAMES[value] for value in np.unique(organs.array).tolist() if value}
  labels = complete_map(rng, seen, coarse.spacing, given)
  if coarse.shape == view.shape:
    return labels
  # The map's own organs come from its own voxels again. Fat stands in for them in what was drawn,
  # so that no coarse edge of an organ shows around its fine one.
  added = np.where(seen > 0, np.uint8(ALL_ORGANS["fat"]), labels)
  added = resample_labels(Volume(added, coarse.affine), view, "onehot_linear").array
  seen = sample_labels(organs.array, refine_indices(indices, coarse, view))
  return np.where(seen > 0, seen, added)


def draw_view(rng: np.random.Generator, organs: Volume, recipe: PaintingRecipe) -> Grid:
  """Draws a field of view around the organs, within the map's slices, with the pancreas inside."""
  spacing = np.array(organs.spacing)
  low, high = _measure_box(organs.array > 0, spacing)
  margins = rng.uniform((30, 40, 0), (65, 75, 90), (2, 3))
  margins[1, 2] *= 0.5  # above the liver there is soon no abdomen
  first, last = low - margins[0], high + margins[1]
  # A map of the whole body is cut to 150 mm above and below the pancreas.
  inner, outer = _measure_box(organs.array == ALL_ORGANS["pancreas"], spacing)
  end = (organs.shape[2] - 1) * spacing[2]
  first[2] = max(first[2], 0.0, inner[2] - 150)
  last[2] = min(last[2], end, outer[2] + 150)
  drawn = [
    rng.uniform(*range_mm) if range_mm else None for range_mm in (recipe.pixel_mm, recipe.slice_mm)
  ]
  step = np.round([drawn[0] or spacing[0], drawn[0] or spacing[1], drawn[1] or spacing[2]], 3)
  shape = np.maximum(np.floor((last - first) / step).astype(int) + 1, 1)
  affine = np.eye(4)
  affine[:3, :3] = organs.grid.directions * step
  affine[:3, 3] = organs.affine[:3, :3] @ (first / spacing) + organs.affine[:3, 3]
  x, y, z = shape.tolist()
  return Grid((x, y, z), affine)


def _measure_box(mask: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Returns the first and the last voxel that is set, along each axis, in mm."""
  box = bounding_slices(mask)
  assert box is not None, "the mask is empty"
  first, last = [side.start for side in box], [side.stop - 1 for side in box]
  return np.array(first) * spacing, np.array(last) * spacing


def _hash_id(map_id: str) -> int:
  # Python's own hash of a string differs from process to process.
  return int.from_bytes(hashlib.sha256(map_id.encode()).digest()[:8], "big")
