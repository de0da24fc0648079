import numpy as np
import pytest

from attn_unet_jax.volumes.volume import Volume
from benchmarks.label_grid import METHODS, measure_map


def test_a_ball_is_held_best_by_occupancy_and_moved_by_the_nearest_voxel_alone():
  ball = np.linalg.norm(np.indices((24, 24, 24)) - 11.5, axis=0) <= 7.4
  found = measure_map(Volume(np.where(ball, 3, 1).astype(np.uint8), np.eye(4)), 3, 2.0)
  assert tuple(found) == METHODS
  assert max(found, key=lambda method: found[method]["dsc"]) == "occupancy"
  assert found["nearest"]["shift_mm"][0] < -0.4
  for method in ("balanced", "onehot_linear", "occupancy"):
    assert found[method]["shift_mm"] == pytest.approx([0, 0, 0], abs=0.1)
  assert found["occupancy"]["volume"] == pytest.approx(1, abs=0.02)
