"""The steps from probabilities to a mask, beyond taking the likeliest class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
    values: the classes that all this is for; (): every class. Of a class without validation labels
      nobody knows what helps: there are two kidneys, and one would not remain.
  """

  threshold: float = 0.5
  largest: bool = False
  smallest_ml: float = 0.0
  fill_holes: bool = False
  values: tuple[int, ...] = ()

  def __post_init__(self) -> None:
    if not (0 < self.threshold < 1 and 0 <= self.smallest_ml < float("inf")):
      raise ValueError(f"threshold {self.threshold}, smallest_ml {self.smallest_ml}: out of range")

  def describe(self) -> str:
    """Returns the steps in words."""
    words = [f"threshold {self.threshold:g}"] if self.threshold != 0.5 else []
    words += ["largest component"] if self.largest else []
    words += [f"components from {self.smallest_ml:g} ml"] if self.smallest_ml else []
    words += ["holes filled"] if self.fill_holes else []
    if words and self.values:
      words.append(f"of class {', '.join(map(str, self.values))} alone")
    return ", ".join(words) or "nothing"


UNCHANGED = Postprocessing()


def parse_steps(said: Mapping[str, Any]) -> Postprocessing:
  """Reads the steps from JSON, as `dataclasses.asdict` gives them.

  Raises:
    KeyError, TypeError, ValueError, OverflowError: they are none.
  """
  return Postprocessing(
    threshold=float(said["threshold"]),
    largest=_read_switch(said["largest"]),
    smallest_ml=float(said["smallest_ml"]),
    fill_holes=_read_switch(said["fill_holes"]),
    # A version before chose for all classes, and said nothing of them.
    values=tuple(int(value) for value in said.get("values", ())),
  )


def _read_switch(value: object) -> bool:
  # `bool` would take the text "false" for true.
  if not isinstance(value, bool):
    raise ValueError(f"{value!r} is neither true nor false")
  return value


def weigh_classes(probabilities: np.ndarray, steps: Postprocessing) -> np.ndarray:
  """Returns probabilities `[X, Y, Z, K]` whose largest one decides by the threshold.

  The background is multiplied by t / (1 - t): of two classes p and 1 - p, the first is then the
  larger one where p > t. Where the steps are for some classes, these are divided by it instead. As
  this is linear it may come before an interpolation.
  """
  if steps.threshold == 0.5:
    return probabilities
  odds = steps.threshold / (1 - steps.threshold)
  weights = np.ones(probabilities.shape[-1], np.float32)
  if steps.values:
    # The background's weight would move the threshold of the other classes too.
    weights[list(steps.values)] = 1 / odds
  else:
    weights[0] = odds
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
  if not steps.values:
    return _change_components(labels, steps, voxel_ml)
  concerned = np.where(np.isin(labels, steps.values), labels, 0)
  changed = _change_components(concerned, steps, voxel_ml)
  # Holes are filled with nothing but background, whatever else is in them.
  return np.where((concerned > 0) | (labels == 0), changed, labels)


def _change_components(labels: np.ndarray, steps: Postprocessing, voxel_ml: float) -> np.ndarray:
  if steps.largest:
    labels = largest_components(labels)
  if steps.smallest_ml:
    # A little less, so that a component of just that volume is kept whatever was rounded.
    labels = remove_small_components(labels, steps.smallest_ml / voxel_ml - 1e-6)
  return fill_holes(labels) if steps.fill_holes else labels
