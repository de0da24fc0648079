"""A label map as NRRD: values computed by hand, after the format's definition."""

import gzip

import numpy as np
import pytest

from attn_unet_jax.volumes.nrrd import format_nrrd
from attn_unet_jax.volumes.volume import Volume

AFFINE = np.array([[-0.5, 0, 0, 10], [0, 0, 3, -20], [0, 0.25, 0, 30], [0, 0, 0, 1.0]])


def test_the_first_axis_is_the_fastest_and_the_space_is_lps():
  array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
  content = format_nrrd(Volume(array, AFFINE), {"background": 0, "liver": 1}, compressed=False)
  header, _, voxels = content.partition(b"\n\n")
  assert header.decode().split("\n") == [
    "NRRD0005",
    "type: uint8",
    "dimension: 3",
    "space: left-posterior-superior",
    "sizes: 2 3 4",
    "space directions: (0.5,0.0,0.0) (0.0,0.0,0.25) (0.0,-3.0,0.0)",
    "kinds: domain domain domain",
    "encoding: raw",
    "space origin: (-10.0,20.0,30.0)",
    'labels:={"background": 0, "liver": 1}',
  ]
  assert voxels[:4] == bytes([0, 12, 4, 16])
  packed = format_nrrd(Volume(array, AFFINE), {})
  assert gzip.decompress(packed.partition(b"\n\n")[2]) == voxels


def test_values_of_two_bytes_have_their_order_in_the_header():
  array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
  content = format_nrrd(Volume(array, AFFINE), {}, compressed=False, voxel_type="uint16")
  header, _, voxels = content.partition(b"\n\n")
  assert b"\ntype: uint16\n" in header
  assert b"\nendian: little\n" in header
  assert voxels[:8] == bytes([0, 0, 12, 0, 4, 0, 16, 0])
  assert len(voxels) == 2 * 24


def test_other_values_are_not_cut_to_bytes():
  with pytest.raises(ValueError, match="uint8, not int16"):
    format_nrrd(Volume(np.zeros((2, 2, 2), np.int16), AFFINE), {})
