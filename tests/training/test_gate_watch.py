import math

import numpy as np
import pytest

from attn_unet_jax.labels import UNLABELLED, rest_value
from attn_unet_jax.patches.batch import NetworkInput
from attn_unet_jax.training.gate_watch import GateWatch, average_sums


def make_batch():
  """Two patches with a margin of two voxels, in whose middle is an organ and a voxel unlabelled."""
  label = np.zeros((2, 12, 8, 8), np.uint8)
  label[:, 4:6, 2:6, 2:6] = 1
  label[:, 0] = 1
  label[1, 9, 2, 2] = UNLABELLED
  return NetworkInput(np.zeros((*label.shape, 1), np.float32), label)


def test_coefficients_are_averaged_by_the_places_of_the_output():
  """Of 6 mm: the shell is one voxel wide, and the rim of the patch is not of the output."""
  watch = GateWatch([make_batch()], (2, 2, 2), 6.0)
  fine = np.zeros((2, 8, 4, 4), np.float32)
  fine[:, 2:4] = 0.75  # the organ, from the output's third voxel on
  fine[:, 1], fine[:, 4] = 0.5, 0.5
  fine[1, 7, 0, 0] = 100  # unlabelled
  coarse = fine.reshape(2, 4, 2, 2, 2, 2, 2).mean((2, 4, 6))
  odd = np.ones((2, 3, 4, 4), np.float32)
  sums = watch.sum_batch(0, {"a": fine, "b": coarse, "odd": odd})
  means = average_sums([sums, sums, {}])
  assert list(means) == ["a", "b"]
  # Output 0 lies within 10 mm of the organ at the patch's rim no more than output 1 does.
  assert means["a"] == {"organ": 0.75, "shell": 0.5, "elsewhere": 0}
  # A coarse voxel counts in each place by its share.
  assert means["b"]["organ"] == 0.75
  assert means["b"]["shell"] == 0.25
  assert average_sums([watch.sum_batch(0, {})]) == {}


@pytest.mark.parametrize("place", [0, 1])
def test_what_a_partly_labelled_set_leaves_open_is_no_organ(place):
  whole = make_batch()
  partial = whole._replace(label=np.where(whole.label == 0, rest_value(place), whole.label))
  fine = np.random.default_rng(0).random((2, 8, 4, 4), np.float32)
  sums = [GateWatch([one], (2, 2, 2), 6.0).sum_batch(0, {"a": fine}) for one in (whole, partial)]
  np.testing.assert_array_equal(sums[0]["a"], sums[1]["a"])


def test_a_place_without_voxels_has_no_mean():
  label = np.zeros((1, 4, 4, 4), np.uint8)
  watch = GateWatch([NetworkInput(label[..., None], label)], (0, 0, 0), 3.0)
  means = average_sums([watch.sum_batch(0, {"a": np.ones((1, 2, 2, 2), np.float32)})])
  assert means["a"]["elsewhere"] == 1
  assert math.isnan(means["a"]["organ"])
