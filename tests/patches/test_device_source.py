import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.patches.device_source import crop_patches, make_resident
from attn_unet_jax.patches.schedule import BatchSample

PATCH = (6, 5, 4)


def _case(shape, seed):
  rng = np.random.default_rng(seed)
  image = rng.integers(-1000, 1000, shape).astype(np.int16)
  return WorkingCase(str(seed), image, (image > 900).astype(np.uint8), 1.5 * seed, 2.0 + seed)


@pytest.fixture(scope="module")
def cases():
  return [_case((9, 8, 7), 1), _case((6, 11, 3), 2)]  # the second is thinner than the patch


def _cut(cases, case, block):
  keys = jax.random.split(jax.random.key(5), 3)
  draw = BatchSample(jnp.full(3, case), jnp.zeros(3, bool), keys)
  return crop_patches(make_resident(cases, PATCH), draw, PATCH, block)


def test_a_patch_is_a_piece_of_its_case(cases):
  blocks = _cut(cases, 0, PATCH)
  windows = np.lib.stride_tricks.sliding_window_view(cases[0].image, PATCH).reshape(-1, *PATCH)
  for image, label in zip(blocks.image, blocks.label, strict=True):
    assert (windows == np.asarray(image)).all((1, 2, 3)).any()
    np.testing.assert_array_equal(label, np.asarray(image) > 900)
  assert blocks.mean.tolist() == [1.5] * 3
  assert blocks.sd.tolist() == [3.0] * 3


def test_a_thin_case_is_padded_with_its_minimum_and_unlabelled(cases):
  blocks = _cut(cases, 1, PATCH)
  image = np.asarray(blocks.image)
  assert (image[..., 0] == cases[1].image.min()).all()
  assert (image[..., 1:] != cases[1].image.min()).any((1, 2, 3)).all()
  label = np.asarray(blocks.label)
  assert (label[..., 0] == UNLABELLED).all()
  np.testing.assert_array_equal(label[..., 1:], image[..., 1:] > 900)


def test_what_a_block_adds_to_a_thin_case_is_unlabelled_too(cases):
  block = (8, 7, 10)  # three voxels beyond the patch on each side
  label = np.asarray(_cut(cases, 1, block).label)
  # The patch has one voxel of padding before the three slices of the scan.
  assert (label[..., :4] == UNLABELLED).all()
  assert (label[..., 4:7] != UNLABELLED).all()


def test_a_larger_block_has_the_patch_in_its_centre_and_repeats_the_border(cases):
  block = (14, 13, 12)
  patches = _cut(cases, 0, PATCH)
  blocks = _cut(cases, 0, block)
  np.testing.assert_array_equal(np.asarray(blocks.image)[:, 4:10, 4:9, 4:8], patches.image)
  padded = np.pad(cases[0].image, [(8, 8)] * 3, mode="edge")
  windows = np.lib.stride_tricks.sliding_window_view(padded, block).reshape(-1, *block)
  for image in np.asarray(blocks.image):
    assert (windows == image).all((1, 2, 3)).any()


def test_positions_are_foreground(cases):
  data = make_resident(cases, PATCH)
  for index, case in enumerate(cases):
    count = int(data.count[index])
    assert count == case.label.sum()
    for x, y, z in np.asarray(data.positions[index, :count]):
      assert data.label[index, x, y, z] == 1


def test_quantiles_are_the_scans_without_its_padding(cases):
  held = make_resident(cases, PATCH, histograms=True).quantiles
  for found, case in zip(held, cases, strict=True):
    expected = np.quantile(case.image, np.linspace(0, 1, found.shape[0]))
    np.testing.assert_allclose(found, expected, atol=1e-3)
