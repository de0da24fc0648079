"""Segments a scan on its own grid."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from attn_unet_jax.cases.boxes import box_voxels
from attn_unet_jax.cases.prepare import working_image
from attn_unet_jax.inference.body import find_outside
from attn_unet_jax.inference.options import PredictionRecipe
from attn_unet_jax.inference.postprocess import (
  UNCHANGED,
  Postprocessing,
  postprocess_mask,
  weigh_classes,
)
from attn_unet_jax.inference.sliding import SegmentationSystem
from attn_unet_jax.volumes.box import Box, crop_volume, paste_probabilities
from attn_unet_jax.volumes.components import largest_components
from attn_unet_jax.volumes.resample import interpolate_box, probabilities_to_labels
from attn_unet_jax.volumes.shear import slant_labels, straighten_image
from attn_unet_jax.volumes.volume import Grid, Volume

Locate = Callable[[Volume], Box | None]

# What a voxel of at most a half counts: of pieces without any other the largest one is kept.
_DOUBTFUL = 1e-6
# Nothing is more certain than this: what is rounded to 1 says nothing about a millionth.
_MOST_CERTAIN = 1 - 1e-6


class ScanSegmentation(NamedTuple):
  """The class indices, uint8, on the scan's own grid, and the box that was segmented or None."""

  mask: Volume
  box: Box | None


class ScanProbabilities(NamedTuple):
  """What a system says about a scan.

  Attributes:
    values: class probabilities, float32 `[X, Y, Z, K]`, on the working grid.
    grid: the working grid.
    canonical: the scan's own grid on canonical axes, straightened if they are sheared.
    native: the scan's own grid.
    box: the box that was segmented; None: the whole scan.
  """

  values: np.ndarray
  grid: Grid
  canonical: Grid
  native: Grid
  box: Box | None


def segment_scan(
  image: Volume,
  system: SegmentationSystem,
  recipe: PredictionRecipe,
  locate: Locate | None = None,
  name: object = "this scan",
  postprocessing: Postprocessing = UNCHANGED,
) -> ScanSegmentation:
  """Segments a scan of any orientation and spacing.

  With `inference.largest_component` each class of the mask is one connected component.

  Args:
    image: the scan on its native grid, HU.
    system: segments a working-grid volume.
    recipe: the options of the prediction: `data` describes the working grid, and `inference` the
      processing of the mask.
    locate: finds the box to segment in the working-grid volume; the rest is background. None: the
      whole volume is segmented.
    name: the scan, for messages.
    postprocessing: what is made of the probabilities and the mask.

  Raises:
    UserError: the box lies outside the scan, or memory cannot hold it on the working grid.
  """
  found = predict_scan(image, system, recipe, locate, name)
  return ScanSegmentation(make_mask(found, recipe, postprocessing), found.box)


def predict_scan(
  image: Volume,
  system: SegmentationSystem,
  recipe: PredictionRecipe,
  locate: Locate | None = None,
  name: object = "this scan",
) -> ScanProbabilities:
  """Predicts class probabilities of a scan; arguments and errors as of `segment_scan`.

  With `inference.within_body` voxels outside the patient's body are background.
  """
  canonical = straighten_image(image, name)
  within_body = recipe.inference.within_body
  # One more byte of each voxel: what is outside is known while the network runs.
  working = working_image(canonical, recipe.data, name, int(within_body))
  # Of the whole scan, also where a box of it is segmented: whether air is outside the body is seen
  # at the scan's sides. Before the network, whose answer takes most of the memory.
  outside = find_outside(working) if within_body else None
  box = locate(working) if locate else None
  values = predict_within(working, box, system, recipe)
  if outside is not None:
    make_background(values, outside)
  return ScanProbabilities(values, working.grid, canonical.grid, image.grid, box)


def make_mask(
  found: ScanProbabilities, recipe: PredictionRecipe, postprocessing: Postprocessing = UNCHANGED
) -> Volume:
  """Returns the class indices, uint8, on the scan's own grid."""
  labels = make_labels(found, recipe, postprocessing)
  mask = postprocess_mask(labels, postprocessing, found.native.voxel_volume_ml)
  return slant_labels(mask, found.native)


def make_labels(
  found: ScanProbabilities, recipe: PredictionRecipe, steps: Postprocessing = UNCHANGED
) -> np.ndarray:
  """Returns class indices, uint8, on the scan's canonical grid, by the threshold of the steps.

  Of a class of `inference.one_piece` the component is kept of which the network is surest, and with
  `inference.largest_component` that of most voxels of each other class.
  """
  weighed = weigh_classes(found.values, steps)
  labels = probabilities_to_labels(weighed, found.grid, found.canonical).array
  # On the native grid: a component of the working grid may fall apart when it is interpolated.
  if values := recipe.one_piece_values:
    labels = largest_components(labels, values, functools.partial(_weigh_certainty, found))
  return largest_components(labels) if recipe.inference.largest_component else labels


def _weigh_certainty(
  found: ScanProbabilities, value: int, where: tuple[slice, slice, slice]
) -> np.ndarray:
  """Returns the log odds of a class, log(p / (1 - p)) or 0, in a box of the canonical grid.

  Their sum over a piece is the log-likelihood that is lost if none of it is of the class, were
  voxels independent. So the piece with the greatest sum is that of the most probable mask of one
  piece: one that is large and doubtful, such as bowel beside the organ, has less of it than the
  organ. Where all pieces are below a half their voxels are counted.
  """
  probability = interpolate_box(found.values[..., value], found.grid, found.canonical, where)
  held = np.clip(probability, 0.5, _MOST_CERTAIN)
  odds: np.ndarray = np.log(held / (1 - held)) + _DOUBTFUL
  return odds


def make_background(values: np.ndarray, where: np.ndarray) -> None:
  """Sets class probabilities to 1 for the background and 0 for the other classes, in place.

  Args:
    values: the probabilities `[X, Y, Z, K]`.
    where: the voxels to set, bool `[X, Y, Z]`.
  """
  background = np.eye(1, values.shape[-1], dtype=values.dtype)[0]
  # Indexing by the mask would list its voxels, in 24 bytes each.
  np.copyto(values, background, where=where[..., None])


def predict_within(
  working: Volume, box: Box | None, system: SegmentationSystem, recipe: PredictionRecipe
) -> np.ndarray:
  """Predicts class probabilities, float32 `[X, Y, Z, K]`, of a volume inside a box."""
  if box is None:
    return system.predict(working)
  # Grown to the patch, like the boxes of training.
  where = box_voxels(box, working.grid, recipe.data.patch, "this scan")
  return paste_probabilities(system.predict(crop_volume(working, where)), where, working.shape)
