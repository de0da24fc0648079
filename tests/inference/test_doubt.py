"""Maps of probabilities and entropy lie on the scan's own voxels and follow their formulas."""

from types import SimpleNamespace

import numpy as np
import pytest

from attn_unet_jax.inference.doubt import map_entropy, map_probabilities
from attn_unet_jax.inference.segment import make_mask, predict_scan
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Volume
from benchmarks.orientations import on_axes
from tests.configs import with_keys

SHAPE = (6, 5, 4)


def answer_of(*probabilities):
  """A system that answers with these probabilities wherever it looks."""
  answer = np.stack(probabilities, -1).astype(np.float32)
  return SimpleNamespace(predict=lambda volume: answer)


@pytest.fixture
def scan():
  return Volume(np.arange(120, dtype=np.int16).reshape(SHAPE), np.diag([2.0, 2.0, 2.0, 1.0]))


@pytest.fixture
def recipe(config):
  return with_keys(config, {"data.spacing_mm": 2.0})


def test_the_probabilities_of_each_class(scan, recipe):
  p = np.random.default_rng(0).random(SHAPE)
  found = predict_scan(scan, answer_of(1 - p, p / 4, 3 * p / 4), recipe)
  shares = map_probabilities(found)
  assert (shares.dtype, shares.shape) == (np.uint16, (*SHAPE, 3))
  for index, wanted in enumerate((1 - p, p / 4, 3 * p / 4)):
    np.testing.assert_allclose(shares[..., index] / 65535, wanted, atol=0.51 / 65535)
  # The mask is the likeliest of them.
  np.testing.assert_array_equal(make_mask(found, recipe).array, shares.argmax(-1))


def test_they_lie_on_the_axes_of_the_file(scan, recipe):
  p = np.random.default_rng(1).random(SHAPE)
  plain = map_probabilities(predict_scan(scan, answer_of(1 - p, p), recipe))
  for axes in ("LPS", "SRA"):
    stored = on_axes(scan, axes)
    found = predict_scan(stored, answer_of(1 - p, p), recipe)
    shares = map_probabilities(found)[..., 1]
    np.testing.assert_array_equal(to_canonical(Volume(shares, stored.affine)).array, plain[..., 1])
    doubt = map_entropy(found)
    np.testing.assert_array_equal(doubt.affine, stored.affine)
    assert to_canonical(doubt).array.shape == SHAPE


def test_they_are_interpolated_from_the_working_grid(config):
  """Two voxels of 4 mm on four of 2 mm, as in the test of masks: 0.6, 0.45, 0.15 and 0."""
  foreground = np.array([0.6, 0.0])[:, None, None]
  scan = Volume(np.zeros((4, 1, 1), np.int16), np.diag([2.0, 4.0, 4.0, 1.0]))
  config = with_keys(config, {"data.spacing_mm": 4.0})
  found = predict_scan(scan, answer_of(1 - foreground, foreground), config)
  np.testing.assert_allclose(
    map_probabilities(found)[:, 0, 0, 1] / 65535, [0.6, 0.45, 0.15, 0], atol=1e-5
  )


def test_entropy_is_0_where_decided_and_1_where_nothing_is_known(scan, recipe):
  p = np.zeros(SHAPE)
  p[0], p[1], p[2] = 0.5, 0.25, 1
  doubt = map_entropy(predict_scan(scan, answer_of(1 - p, p), recipe)).array
  assert doubt.dtype == np.float32
  by_hand = [1, -(0.25 * np.log2(0.25) + 0.75 * np.log2(0.75)), 0, 0]
  np.testing.assert_allclose(doubt[:4, 0, 0], by_hand, atol=1e-6)
  thirds = np.full(SHAPE, 1 / 3)
  doubt = map_entropy(predict_scan(scan, answer_of(thirds, thirds, thirds), recipe)).array
  np.testing.assert_allclose(doubt, 1, atol=1e-6)
