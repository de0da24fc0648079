"""A scan in, its segmentation on the same grid out."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from attn_unet_jax.cases.boxes import box_voxels
from attn_unet_jax.cases.prepare import working_image
from attn_unet_jax.inference.options import PredictionRecipe
from attn_unet_jax.inference.sliding import SegmentationSystem
from attn_unet_jax.volumes.box import Box, crop_volume, paste_probabilities
from attn_unet_jax.volumes.components import largest_components
from attn_unet_jax.volumes.orientation import from_canonical, to_canonical
from attn_unet_jax.volumes.resample import probabilities_to_labels
from attn_unet_jax.volumes.volume import Volume

Locate = Callable[[Volume], Box | None]


class Segmentation(NamedTuple):
  """Class indices uint8 on the scan's own grid; the box that was looked at, None for all of it."""

  mask: Volume
  box: Box | None


def segment_scan(
  image: Volume,
  system: SegmentationSystem,
  recipe: PredictionRecipe,
  locate: Locate | None = None,
  name: object = "this scan",
) -> Segmentation:
  """Segments a scan, whatever its axes and spacing.

  With `inference.largest_component` each class of the mask is one piece: on the native grid, since
  what hangs together on the working grid need not do so once it is interpolated.

  Args:
    image: the scan on its native grid, HU.
    system: what segments a working-grid volume.
    recipe: what the prediction reads; its `data` section says how the working grid is reached, and
      `inference` what becomes of the mask.
    locate: where in the working-grid volume to look; elsewhere is background. None: everywhere.
    name: the scan, for messages.

  Raises:
    UserError: the box lies outside the scan, or memory cannot hold it on the working grid.
  """
  canonical = to_canonical(image)
  working = working_image(canonical, recipe.data, name, in_box=locate is not None)
  box = locate(working) if locate else None
  probabilities = predict_within(working, box, system, recipe)
  labels = probabilities_to_labels(probabilities, working.grid, canonical.grid)
  mask = labels.array
  if recipe.inference.largest_component:
    mask = largest_components(mask)
  return Segmentation(from_canonical(mask, image.grid), box)


def predict_within(
  working: Volume, box: Box | None, system: SegmentationSystem, recipe: PredictionRecipe
) -> np.ndarray:
  """Class probabilities float32 `[X, Y, Z, K]` of a volume of which only a box is looked at."""
  if box is None:
    return system.predict(working)
  where = box_voxels(box, working.grid, recipe.data.patch, "this scan")
  return paste_probabilities(system.predict(crop_volume(working, where)), where, working.shape)
