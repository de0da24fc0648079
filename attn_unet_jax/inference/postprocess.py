"""The steps from probabilities to a mask, beyond taking the likeliest class."""

from dataclasses import dataclass

import numpy as np

from attn_unet_jax.volumes.components import (
  fill_holes,
  largest_components,
  remove_small_components,
)


@dataclass(frozen=True)
class Postprocessing:
  """The steps between probabilities and mask, in the order in which they are taken.

  Attributes:
    threshold: the probability from which one of two classes is foreground. Of several, the
      likeliest one is where it is more than threshold / (1 - threshold) times as likely as the
      background.
    largest: whether only the largest component of each class is kept.
    smallest_ml: components of less than so many millilitres are removed.
    fill_holes: whether background that a class encloses becomes that class.
  """

  threshold: float = 0.5
  largest: bool = False
  smallest_ml: float = 0.0
  fill_holes: bool = False

  def __post_init__(self) -> None:
    if not (0 < self.threshold < 1 and 0 <= self.smallest_ml < float("inf")):
      raise ValueError(f"threshold {self.threshold}, smallest_ml {self.smallest_ml}: out of range")

  def describe(self) -> str:
    """Returns the steps in words."""
    words = [f"threshold {self.threshold:g}"] if self.threshold != 0.5 else []
    words += ["largest component"] if self.largest else []
    words += [f"components from {self.smallest_ml:g} ml"] if self.smallest_ml else []
    words += ["holes filled"] if self.fill_holes else []
    return ", ".join(words) or "nothing"


UNCHANGED = Postprocessing()


def weigh_background(probabilities: np.ndarray, threshold: float) -> np.ndarray:
  """Returns probabilities `[X, Y, Z, K]` whose largest one decides by the threshold.

  The background is multiplied by t / (1 - t): of two classes p and 1 - p, the first is then the
  larger one where p > t. As this is linear it may come before an interpolation.
  """
  if threshold == 0.5:
    return probabilities
  weights = np.ones(probabilities.shape[-1], np.float32)
  weights[0] = threshold / (1 - threshold)
  result: np.ndarray = probabilities * weights
  return result


def postprocess_mask(labels: np.ndarray, steps: Postprocessing, voxel_ml: float) -> np.ndarray:
  """Takes the steps that follow the threshold.

  Args:
    labels: class indices uint8 [X, Y, Z] on the scan's own grid.
    steps: what to do.
    voxel_ml: the volume of a voxel in millilitres.

  Returns:
    an array of the same shape and type; the same one if there is nothing to do.
  """
  if steps.largest:
    labels = largest_components(labels)
  if steps.smallest_ml:
    # A little less, so that a component of just that volume is kept whatever was rounded.
    labels = remove_small_components(labels, steps.smallest_ml / voxel_ml - 1e-6)
  return fill_holes(labels) if steps.fill_holes else labels
