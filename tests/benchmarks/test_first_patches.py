"""What is measured of a patch, by patches whose answer is known."""

import numpy as np
import pytest

from attn_unet_jax.labels import UNLABELLED
from benchmarks.first_patches import measure_patch

FAT = "fat beside the pancreas, share"


def draw_patch(beside_hu, inside_hu=90.0):
  """A block of pancreas, fat on one side of it, and on the others what is asked for."""
  hu = np.full((40, 30, 6), beside_hu)
  hu[:12] = -100.0
  label = np.zeros(hu.shape, np.uint8)
  label[12:28, 10:20, 1:5] = 1
  hu[label == 1] = inside_hu
  return hu, label


def test_a_patch_of_constant_parts_is_told_exactly():
  found = measure_patch(*draw_patch(60.0))
  # Of a frame of 3 voxels around 16 x 10: 22 x 16 - 160 voxels, 3 x 16 of them fat.
  assert found[FAT] == pytest.approx(3 * 16 / (22 * 16 - 160))
  assert found["pancreas, HU"] == 90
  assert found["pancreas above its neighbours, HU"] == 30
  assert found["sd within it, HU"] == found["sd of its neighbours, HU"] == 0
  assert found["slope, HU a voxel"] == 0


def test_fat_alone_has_no_neighbours_and_what_is_unlabelled_is_not_counted():
  hu, label = draw_patch(-100.0)
  found = measure_patch(hu, label)
  assert found[FAT] == 1
  assert np.isnan(found["pancreas above its neighbours, HU"])
  assert np.isnan(found["sd of its neighbours, HU"])
  hu, label = draw_patch(60.0)
  label[:12] = UNLABELLED
  assert measure_patch(hu, label)[FAT] == 0
