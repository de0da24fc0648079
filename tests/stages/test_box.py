import numpy as np

from attn_unet_jax.stages.box import find_box
from attn_unet_jax.volumes.volume import Grid

GRID = Grid((20, 20, 10), np.diag([2.0, 2.0, 2.0, 1.0]))


def test_around_the_largest_component_above_a_half():
  probability = np.full(GRID.shape, 0.5)  # 0.5 itself is background
  probability[3:9, 4:9, 2:7] = 0.51
  probability[14:17, 14:17, 2:5] = 1.0
  box = find_box(probability, GRID)
  ends = [(part.start, part.stop) for part in box.voxel_slices(GRID)]
  assert ends == [(3, 9), (4, 9), (2, 7)]
  assert find_box(probability, GRID, 4.0) == box.add_margin(4.0)


def test_nothing_is_found_where_nothing_is_left():
  probability = np.zeros(GRID.shape)
  probability[5, 5, 5] = 1.0
  assert find_box(probability, GRID) is None
