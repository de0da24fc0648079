"""Applies the trained stages to a scan: finds the box of the organ and segments it."""

from typing import NamedTuple

import numpy as np

from attn_unet_jax.inference.options import PredictionRecipe
from attn_unet_jax.inference.segment import predict_within
from attn_unet_jax.inference.sliding import SegmentationSystem
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.stages import box
from attn_unet_jax.stages.body import body_box
from attn_unet_jax.stages.features import measure_features
from attn_unet_jax.stages.forest import RandomForest
from attn_unet_jax.stages.options import StageRecipe
from attn_unet_jax.stages.superpixels import make_superpixels
from attn_unet_jax.volumes.box import Box
from attn_unet_jax.volumes.volume import Volume


class SuperpixelFeatures(NamedTuple):
  """The superpixel of each voxel, int32 `[x, y, z]`, and their features, float32 `[S, 31]`."""

  segments: np.ndarray
  features: np.ndarray


def locate_organ(
  working: Volume, first: SegmentationSystem, recipe: PredictionRecipe, margin_mm: float = 0.0
) -> Box:
  """Returns the box that the first stage finds in a scan.

  If it finds nothing, the box is the whole body, and a line on the screen says so.

  Args:
    working: the scan on the working grid, HU.
    first: the network of the first stage, which segments the body only.
    recipe: the options of the first stage.
    margin_mm: margin of the box on each side.
  """
  body = body_box(working)
  probability = predict_within(working, body, first, recipe)[..., 1]
  found = box.find_box(probability, working.grid, margin_mm)
  if found is None:
    print_line(
      "warning: the first stage found nothing in a scan; the second looks at the whole body"
    )
  # The second stage needs some box to segment the scan at all.
  return found or body


def measure_superpixels(
  part: Volume, interior: SegmentationSystem, boundary: SegmentationSystem, recipe: StageRecipe
) -> SuperpixelFeatures:
  """Divides the part of a scan in its box into superpixels, and measures their features.

  Args:
    part: the part on the working grid, HU.
    interior: the network of the interior.
    boundary: the network of the boundary.
    recipe: gives the intensity window, the spacing and the size of superpixels.
  """
  inside, edge = (system.predict(part)[..., 1] for system in (interior, boundary))
  spacing = recipe.data.spacing_mm
  segments = make_superpixels(edge, spacing, recipe.stages.superpixel_mm)
  # `measure_features` expects HU within the window.
  windowed = np.clip(part.array, *recipe.data.window_hu)
  return SuperpixelFeatures(segments, measure_features(segments, (windowed, inside, edge), spacing))


class SecondStage:
  """A system of networks for interior and boundary, and a forest that decides by superpixels."""

  def __init__(
    self,
    recipe: StageRecipe,
    interior: SegmentationSystem,
    boundary: SegmentationSystem,
    forest: RandomForest,
  ):
    self._recipe, self._forest = recipe, forest
    self._networks = interior, boundary

  def predict(self, volume: Volume) -> np.ndarray:
    """Predicts probabilities, float32 `[x, y, z, 2]`, of a part in its box."""
    segments, columns = measure_superpixels(volume, *self._networks, self._recipe)
    probability = self._forest.probability(columns)
    foreground = _centre_threshold(probability, self._forest.threshold).astype(np.float32)[segments]
    return np.stack([1 - foreground, foreground], -1)


def _centre_threshold(probability: np.ndarray, threshold: float) -> np.ndarray:
  """Maps 0 to 0, the threshold to 0.5 and 1 to 1, piecewise linearly."""
  # Prediction takes the likelier class, that is, it applies a threshold of 0.5.
  result: np.ndarray = np.interp(probability, [0.0, threshold, 1.0], [0.0, 0.5, 1.0])
  return result
