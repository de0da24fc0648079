"""The stages' answer to a scan, with networks and a forest that are known functions."""

import numpy as np
import pytest

from attn_unet_jax.stages.forest import grow_forest
from attn_unet_jax.stages.system import SecondStage, locate_organ, measure_superpixels
from attn_unet_jax.volumes.box import box_from_slices
from attn_unet_jax.volumes.volume import Volume
from tests.configs import with_keys


class _Band:
  """Foreground where HU lies in a band."""

  def __init__(self, low, high):
    self._low, self._high = low, high
    self.seen = []

  def predict(self, volume):
    self.seen.append(volume.shape)
    inside = (volume.array > self._low) & (volume.array < self._high)
    foreground = np.where(inside, 0.9, 0.1).astype(np.float32)
    return np.stack([1 - foreground, foreground], -1)


AFFINE = np.diag([3.0, 3.0, 3.0, 1.0])
ORGAN = (slice(10, 22), slice(12, 24), slice(2, 8))


@pytest.fixture
def config(config):
  return with_keys(
    config, {"data.spacing_mm": 3.0, "data.patch": (4, 4, 4), "stages.superpixel_mm": 12.0}
  )


@pytest.fixture
def scan():
  hu = np.full((40, 40, 10), -1000, np.int16)
  hu[4:36, 6:34] = 40
  hu[ORGAN] = 120
  hu[12:15, 0:3, :] = 120  # something bright beside the body
  return Volume(hu, AFFINE)


def test_the_box_is_that_of_the_organ_and_only_the_body_is_looked_at(config, scan):
  network = _Band(100, 140)
  assert locate_organ(scan, network, config) == box_from_slices(ORGAN, scan.grid)
  assert network.seen == [(32, 28, 10)]
  assert locate_organ(scan, network, config, 6.0) == box_from_slices(ORGAN, scan.grid).add_margin(
    6.0
  )


def test_where_nothing_is_found_it_is_the_body_and_a_line_says_so(config, scan, capsys):
  body = (slice(4, 36), slice(6, 34), slice(0, 10))
  assert locate_organ(scan, _Band(500, 600), config) == box_from_slices(body, scan.grid)
  assert "warning: the first stage found nothing" in capsys.readouterr().out


def test_the_ct_is_measured_within_its_window(config, scan):
  config = with_keys(config, {"data.window_hu": (-160.0, 100.0)})
  segments, features = measure_superpixels(scan, _Band(100, 140), _Band(0, 60), config)
  assert segments.shape == scan.shape
  assert len(features) == segments.max() + 1
  assert (features[:, 2].min(), features[:, 8].max()) == (-160, 100)
  np.testing.assert_allclose(features[:, 9].max(), 0.9, rtol=1e-6)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.85])
def test_a_superpixel_is_foreground_above_the_threshold(config, scan, threshold):
  import dataclasses

  interior, boundary = _Band(100, 140), _Band(0, 60)
  segments, features = measure_superpixels(scan, interior, boundary, config)
  noisy = np.random.default_rng(0).random(len(features)) < features[:, 9]
  forest = dataclasses.replace(grow_forest(features, noisy, 0), threshold=threshold)
  answer = SecondStage(config, interior, boundary, forest).predict(scan)
  assert answer.shape == (*scan.shape, 2)
  np.testing.assert_allclose(answer.sum(-1), 1, rtol=1e-6)
  chosen = forest.probability(features) > threshold
  assert 0 < chosen.mean() < 1
  np.testing.assert_array_equal(answer.argmax(-1) == 1, chosen[segments])
