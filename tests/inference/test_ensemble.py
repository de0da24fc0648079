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
