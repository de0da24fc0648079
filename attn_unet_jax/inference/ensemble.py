"""An ensemble: the probabilities of several systems are averaged."""

from collections.abc import Sequence

import numpy as np

from attn_unet_jax.inference.agreement import MemberAgreement
from attn_unet_jax.inference.quality import find_likeliest
from attn_unet_jax.inference.sliding import SegmentationSystem
from attn_unet_jax.volumes.volume import Volume


class EnsembleSystem:
  """A system that averages what others say about a scan.

  The mean is updated with one member after another, so that equal answers stay what they are, to
  the bit, and memory holds two of them whatever their number. (Welford 1962: the running mean.)

  Attributes:
    members: what is averaged.
    agreement: how far the members agree about what was predicted since it was cleared.
  """

  def __init__(self, members: Sequence[SegmentationSystem]):
    """Keeps the members, one or more, which segment a working-grid volume by the same classes."""
    self.members = tuple(members)
    self.agreement = MemberAgreement()

  def predict(self, volume: Volume) -> np.ndarray:
    """Predicts class probabilities, float32 `[X, Y, Z, K]`; an array of that size more."""
    first, *others = self.members
    mean = first.predict(volume)
    # Classes are a byte a voxel: the answers themselves would be in memory all at a time.
    said = [find_likeliest(mean)]
    for count, member in enumerate(others, 2):
      answer = member.predict(volume)
      said.append(find_likeliest(answer))
      # A new array at first: a member's answer is its own.
      change = answer - mean
      change *= np.float32(1 / count)
      mean = np.add(mean, change, out=change)
    self.agreement.add(said, find_likeliest(mean), mean.shape[-1])
    return mean
