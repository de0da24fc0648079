import numpy as np

from attn_unet_jax.stages.body import body_box, open_and_keep_largest
from attn_unet_jax.volumes.volume import Volume


def _blocks(*blocks, shape=(12, 12, 12)):
  mask = np.zeros(shape, bool)
  for block in blocks:
    mask[tuple(slice(a, b) for a, b in block)] = True
  return mask


def test_keeps_the_largest_block_and_drops_a_bridge():
  large = [(2, 7), (2, 7), (2, 7)]
  small = [(9, 12), (2, 5), (2, 5)]
  bridge = [(7, 9), (3, 4), (3, 4)]
  found = open_and_keep_largest(_blocks(large, small, bridge))
  # Opening by the six neighbours rounds a cube: a voxel stays if a whole cross around it fits.
  assert found[3:6, 3:6, 3:6].all()
  assert not found[8:].any()
  assert np.argwhere(found[7]).tolist() == [[3, 3]]  # its first voxel: a cross fits before it
  assert not found[2, 2, 2]
  assert found[2, 4, 4]


def test_size_counts_after_erosion():
  """A plate has more voxels than the cube, but nothing of it survives the erosion."""
  cube, plate = [(0, 4), (0, 4), (0, 4)], [(8, 9), (0, 12), (0, 12)]
  found = open_and_keep_largest(_blocks(cube, plate))
  assert found[1, 1, 1]
  assert not found[8].any()


def test_touching_corners_are_two_components():
  found = open_and_keep_largest(_blocks([(0, 6), (0, 6), (0, 6)], [(6, 10), (6, 10), (6, 10)]))
  assert found[5, 3, 3]
  assert not found[6:].any()


def test_the_border_of_the_scan_does_not_erode():
  mask = _blocks([(3, 9), (3, 9), (0, 12)])
  np.testing.assert_array_equal(
    open_and_keep_largest(mask)[:, :, 0], open_and_keep_largest(mask)[:, :, 6]
  )
  assert open_and_keep_largest(np.ones((2, 2, 2), bool)).all()


def test_nothing_stays_nothing():
  assert not open_and_keep_largest(np.zeros((4, 4, 4), bool)).any()


def test_the_box_of_a_body_beside_a_table():
  hu = np.full((20, 16, 6), -1000, np.int16)
  hu[4:15, 5:12] = 40
  hu[6:9, 7:9] = -800  # lung inside
  hu[2:18, 1:2] = 200  # table
  box = body_box(Volume(hu, np.diag([3.0, 3.0, 5.0, 1.0])))
  grid = Volume(hu, np.diag([3.0, 3.0, 5.0, 1.0])).grid
  ends = [(part.start, part.stop) for part in box.voxel_slices(grid)]
  assert ends == [(4, 15), (5, 12), (0, 6)]


def test_an_empty_scan_is_its_own_box():
  volume = Volume(np.full((4, 5, 6), -1000, np.int16), np.eye(4))
  assert body_box(volume).voxel_slices(volume.grid) == (slice(0, 4), slice(0, 5), slice(0, 6))
