"""Simulated low resolution, by its definition written out in three dimensions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from attn_unet_jax.augment.low_resolution import lower_resolution
from attn_unet_jax.augment.options import LowResolutionOptions

IMAGE = np.random.default_rng(0).normal(size=(9, 8, 6)).astype(np.float32)
KEY = jax.random.key(0)


def _lower(zoom, image=IMAGE):
  options = LowResolutionOptions(low_resolution_zoom=(zoom, zoom))
  lower = jax.jit(lower_resolution, static_argnums=2)
  return np.asarray(lower(KEY, jnp.array(image), options))


@pytest.mark.parametrize("zoom", [0.5, 0.63, 0.9])
def test_it_is_the_nearest_voxel_of_a_coarser_grid_and_back_linearly(zoom):
  counts = [round(float(np.float32(n) * np.float32(zoom))) for n in IMAGE.shape]
  nearest = [
    ((np.arange(k) + 0.5) * n / k).astype(int) for n, k in zip(IMAGE.shape, counts, strict=True)
  ]
  coarse = IMAGE[np.ix_(*nearest)]
  centres = [
    np.clip((np.arange(n) + 0.5) * k / n - 0.5, 0, k - 1)
    for n, k in zip(IMAGE.shape, counts, strict=True)
  ]
  expected = ndimage.map_coordinates(coarse, np.meshgrid(*centres, indexing="ij"), order=1)
  np.testing.assert_allclose(_lower(zoom), expected, atol=1e-5)


def test_a_zoom_of_1_changes_nothing():
  np.testing.assert_allclose(_lower(1.0), IMAGE, atol=1e-6)


def test_one_voxel_is_left_of_an_axis_at_least():
  line = np.arange(3, dtype=np.float32).reshape(3, 1, 1)
  np.testing.assert_array_equal(_lower(0.1, line), np.ones((3, 1, 1)))
