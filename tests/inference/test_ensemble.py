"""Means over systems, against sums by hand."""

import numpy as np
import pytest

from attn_unet_jax.inference.ensemble import EnsembleSystem
from attn_unet_jax.volumes.volume import Volume

VOLUME = Volume(np.zeros((4, 5, 6), np.int16), np.eye(4))


class Constant:
  def __init__(self, seed):
    self.answer = np.random.default_rng(seed).random((4, 5, 6, 2), np.float32)
    self.answer.flags.writeable = False  # it is not its caller's to change

  def predict(self, volume):
    assert volume is VOLUME
    return self.answer


@pytest.mark.parametrize("count", [1, 2, 5])
def test_equal_members_give_their_answer_to_the_bit(count):
  member = Constant(0)
  found = EnsembleSystem([member] * count).predict(VOLUME)
  np.testing.assert_array_equal(found, member.answer)


def test_members_are_averaged():
  members = [Constant(seed) for seed in range(3)]
  found = EnsembleSystem(members).predict(VOLUME)
  by_hand = (members[0].answer + members[1].answer + members[2].answer) / 3
  np.testing.assert_allclose(found, by_hand, rtol=1e-6)
  assert found.dtype == np.float32


def test_members_agree_as_far_as_their_masks_are_that_of_the_mean():
  members = [Constant(seed) for seed in range(3)]
  system = EnsembleSystem(members)
  assert system.agreement.measure() == []
  system.predict(VOLUME)
  mean = (members[0].answer + members[1].answer + members[2].answer).argmax(-1)
  masks = [member.answer.argmax(-1) for member in members]
  dsc = [2 * (mask * mean).sum() / (mask.sum() + mean.sum()) for mask in masks]
  assert system.agreement.measure() == [pytest.approx(np.mean(dsc))]
  # The voxels of further predictions of the scan, such as mirrored ones, are added.
  system.predict(VOLUME)
  assert system.agreement.measure() == [pytest.approx(np.mean(dsc))]
  system.agreement.clear()
  assert system.agreement.measure() == []
