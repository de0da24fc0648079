import sys

import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.stages.superpixels import make_superpixels


def test_without_a_boundary_each_pixel_goes_to_the_nearest_marker():
  found = make_superpixels(np.zeros((12, 8, 2)), 3.0, 12.0)
  assert found.dtype == np.int32
  assert sorted(np.unique(found)) == list(range(3 * 2 * 2))
  markers = np.stack(np.meshgrid([2, 6, 10], [2, 6], indexing="ij"), -1).reshape(-1, 2)
  for place in np.ndindex(found.shape):
    distance = np.linalg.norm(markers - place[:2], axis=1)
    own = markers[found[place] // 2]
    assert np.linalg.norm(own - place[:2]) == distance.min()


def test_each_lies_in_one_slice_in_one_piece():
  from scipy import ndimage

  found = make_superpixels(np.random.default_rng(0).random((21, 17, 3)), 3.0, 12.0)
  for number in range(found.max() + 1):
    where = found == number
    assert where.any()
    assert np.flatnonzero(where.any(axis=(0, 1))).size == 1
    assert ndimage.label(where)[1] == 1


def test_they_follow_the_boundary():
  """A closed ring of boundary: no superpixel but those on the ring lies on both sides of it."""
  x, y = np.mgrid[:40, :40] - 19.5
  radius = np.hypot(x, y)
  boundary = (np.abs(radius - 11) < 1.2).astype(float)[..., None]
  inside, outside = (radius < 9.8)[..., None], (radius > 12.2)[..., None]
  found = make_superpixels(boundary, 1.0, 6.0)
  both = np.intersect1d(found[inside], found[outside])
  squares = make_superpixels(np.zeros_like(boundary), 1.0, 6.0)
  assert np.intersect1d(squares[inside], squares[outside]).size >= 4
  assert both.size == 0


def test_a_slice_smaller_than_one_is_one():
  assert (make_superpixels(np.zeros((2, 3, 1)), 3.0, 30.0) == 0).all()


def test_a_missing_package_is_a_line_that_says_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
  with pytest.raises(UserError, match=r"skimage.*pip install '.\[hnn\]'"):
    make_superpixels(np.zeros((4, 4, 1)), 3.0, 12.0)
