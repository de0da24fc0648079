"""The boundary as a target: on the working grid, on a native grid, and where it is used."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.cases.target import keep_boundary, native_boundary
from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.patches.batch import crop_fixed_batches
from attn_unet_jax.volumes.volume import Volume
from tests.configs import with_keys


def blobs(shape=(14, 11, 9)):
  noise = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), 1.2)
  return (noise > 0).astype(np.uint8)


def test_it_is_the_mask_less_its_erosion():
  mask = blobs()
  eroded = ndimage.binary_erosion(mask, border_value=1)
  found = jax.jit(keep_boundary)(jnp.asarray(mask))
  assert found.dtype == jnp.uint8
  np.testing.assert_array_equal(found, mask & ~eroded)
  assert 0 < np.count_nonzero(found) < np.count_nonzero(mask)


def test_a_cube_by_hand():
  """Of 5^3 voxels the inner 3^3 vanish; at the patch's border nothing is cut open."""
  label = np.zeros((9, 9, 9), np.uint8)
  label[2:7, 2:7, 2:7] = 1
  assert int(keep_boundary(jnp.asarray(label)).sum()) == 125 - 27
  assert not keep_boundary(jnp.ones((4, 4, 4), jnp.uint8)).any()


def test_unlabelled_voxels_stay_and_leave_their_neighbours_in_doubt():
  row = jnp.array([0, 1, 1, 1, UNLABELLED, 0, 1, UNLABELLED], jnp.uint8)[:, None, None]
  expected = [0, 1, 0, UNLABELLED, UNLABELLED, 0, 1, UNLABELLED]
  np.testing.assert_array_equal(keep_boundary(row)[:, 0, 0], expected)
  native = native_boundary(Volume(np.asarray(row), np.eye(4)), 1.0)
  np.testing.assert_array_equal(native.array[:, 0, 0], expected)


def test_on_a_native_grid_it_is_as_deep_as_a_working_voxel():
  """2 mm of voxels of 1.1, 0.5 and 5 mm: two, four and one."""
  label = np.zeros((20, 30, 12), np.uint8)
  label[3:17, 4:26, 2:10] = 1
  deep = native_boundary(Volume(label, np.diag([1.1, -0.5, 5.0, 1.0])), 2.0).array
  inner = np.zeros_like(label)
  inner[5:15, 8:22, 3:9] = 1
  np.testing.assert_array_equal(deep, label - inner)
  same = native_boundary(Volume(blobs(), np.eye(4)), 1.0).array
  np.testing.assert_array_equal(same, keep_boundary(jnp.asarray(blobs())))


def test_batches_have_it_as_their_label(config):
  image = np.random.default_rng(1).integers(-200, 300, (24, 24, 24)).astype(np.int16)
  case = WorkingCase("a", image, blobs((24, 24, 24)), 0.0, 1.0)
  config = with_keys(config, {"data.patch": (16, 16, 16)})
  interior = crop_fixed_batches(config, [case])
  config = with_keys(config, {"data.target": "boundary"})
  for whole, edge in zip(interior, crop_fixed_batches(config, [case]), strict=True):
    np.testing.assert_array_equal(edge.image, whole.image)
    np.testing.assert_array_equal(edge.label, jax.vmap(keep_boundary)(whole.label))
    assert edge.label.sum() < whole.label.sum()
