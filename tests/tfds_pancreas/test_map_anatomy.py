"""Organs on the wrong side of the body."""

import numpy as np
import pytest

from attn_unet_jax.volumes.volume import Volume
from tfds_pancreas.abdomen.organs import ALL_ORGANS
from tfds_pancreas.painted_ct.map_anatomy import find_misplaced


def make_map(**places):
  """A map of 2 mm in which each organ is a cube about a place along X, in voxels."""
  labels = np.zeros((60, 20, 20), np.uint8)
  for number, (name, middle) in enumerate(places.items()):
    labels[middle - 1 : middle + 2, 4 * number : 4 * number + 3, 5:8] = ALL_ORGANS[name]
  return Volume(labels, np.diag([2.0, 2.0, 2.0, 1.0]))


@pytest.mark.parametrize(
  ("places", "said"),
  [
    ({"liver": 45, "stomach": 20, "spleen": 10, "kidney_right": 40, "kidney_left": 15}, ""),
    ({"liver": 45}, ""),
    ({"pancreas": 30}, ""),
    ({"liver": 20, "stomach": 45}, "liver 50 mm to the left of stomach"),
    (
      {"kidney_right": 15, "kidney_left": 40, "gallbladder": 10, "spleen": 50},
      "gallbladder 80 mm to the left of spleen, kidney_right 50 mm to the left of kidney_left",
    ),
  ],
)
def test_organs_that_lie_on_the_wrong_side_are_named(places, said):
  assert find_misplaced(make_map(**places)) == said
