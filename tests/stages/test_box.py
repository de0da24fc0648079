import math

import numpy as np
import pytest

from attn_unet_jax.stages.box import find, recall, volume_reduction
from attn_unet_jax.volumes.box import Box, box_of
from attn_unet_jax.volumes.volume import Grid, Volume

GRID = Grid((20, 20, 10), np.diag([2.0, 2.0, 2.0, 1.0]))


def test_around_the_largest_component_above_a_half():
  probability = np.full(GRID.shape, 0.5)  # 0.5 itself is background
  probability[3:9, 4:9, 2:7] = 0.51
  probability[14:17, 14:17, 2:5] = 1.0
  box = find(probability, GRID)
  ends = [(part.start, part.stop) for part in box.voxels(GRID)]
  assert ends == [(3, 9), (4, 9), (2, 7)]
  assert find(probability, GRID, 4.0) == box.grown(4.0)


def test_nothing_is_found_where_nothing_is_left():
  probability = np.zeros(GRID.shape)
  probability[5, 5, 5] = 1.0
  assert find(probability, GRID) is None


def test_recall_by_hand():
  label = np.zeros(GRID.shape, np.uint8)
  label[5:9, 5, 5] = 1
  box = box_of((slice(6, 20), slice(0, 20), slice(0, 10)), GRID)
  assert recall(box, Volume(label, GRID.affine)) == 0.75
  assert math.isnan(recall(box, Volume(0 * label, GRID.affine)))


def test_recall_on_another_grid_of_the_same_scan():
  """On half the spacing each voxel is eight: the share stays."""
  label = np.zeros(GRID.shape, np.uint8)
  label[5:9, 5, 5] = 1
  fine = Volume(label.repeat(2, 0).repeat(2, 1).repeat(2, 2), np.diag([1.0, 1.0, 1.0, 1.0]))
  assert recall(box_of((slice(6, 20), slice(0, 20), slice(0, 10)), GRID), fine) == 0.75


def test_volume_reduction_by_hand():
  assert volume_reduction(
    box_of((slice(0, 10), slice(5, 15), slice(0, 5)), GRID), GRID
  ) == pytest.approx(1 - 1 / 8)
  beyond = Box((-100.0, -100.0, -100.0), (0.0, 100.0, 100.0))  # what lies outside does not count
  assert volume_reduction(beyond, GRID) == pytest.approx(0.5)
