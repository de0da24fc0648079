"""An ensemble: the probabilities of several systems are averaged."""

from collections.abc import Sequence

import numpy as np

from attn_unet_jax.inference.sliding import SegmentationSystem
from attn_unet_jax.volumes.volume import Volume


class EnsembleSystem:
  """A system that averages what others say about a scan.

  The mean is updated with one member after another, so that equal answers stay what they are, to
  the bit, and memory holds two of them whatever their number. (Welford 1962: the running mean.)

  Args:
    members: segment a working-grid volume, with the same classes; one or more.
  """

  def __init__(self, members: Sequence[SegmentationSystem]):
    self._members = tuple(members)

  def predict(self, volume: Volume) -> np.ndarray:
    """Predicts class probabilities, float32 `[X, Y, Z, K]`; an array of that size more."""
    first, *others = self._members
    mean = first.predict(volume)
    for count, member in enumerate(others, 2):
      # A new array at first: a member's answer is its own.
      change = member.predict(volume) - mean
      change *= np.float32(1 / count)
      mean = np.add(mean, change, out=change)
    return mean
