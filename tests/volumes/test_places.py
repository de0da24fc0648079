import numpy as np

from attn_unet_jax.volumes.places import ELSEWHERE, ORGAN, SHELL, divide_places


def test_a_shell_is_what_lies_within_10_mm_of_the_organ():
  """On voxels of 4 x 5 x 6 mm, against the distance to every voxel of the organ."""
  spacing = np.array([4.0, 5.0, 6.0])
  organ = np.zeros((12, 10, 9), bool)
  organ[4:6, 0:2, 3] = True
  organ[9, 9, 8] = True
  grid = np.stack(np.meshgrid(*map(np.arange, organ.shape), indexing="ij"), -1) * spacing
  far = np.min([np.linalg.norm(grid - at, axis=-1) for at in grid[organ]], 0)
  expected = np.where(organ, ORGAN, np.where(far <= 10, SHELL, ELSEWHERE))
  np.testing.assert_array_equal(divide_places(organ, spacing), expected)
  assert (divide_places(np.zeros_like(organ), spacing) == ELSEWHERE).all()
