import os
import signal
from itertools import pairwise

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.inference.sliding import SlidingWindow, gaussian_weights, window_starts
from attn_unet_jax.patches.padded_case import pad_case
from attn_unet_jax.runtime.signals import StopRequest, defer_signals
from attn_unet_jax.volumes.intensity import measure_intensity
from attn_unet_jax.volumes.volume import Volume
from tests.configs import with_keys


class _Convolution(nn.Module):
  """A network whose answer at a voxel depends on its neighbours at most `reach` away."""

  reach: int
  num_classes: int = 3

  @property
  def output_margin(self):
    return (self.reach,) * 3

  @nn.compact
  def __call__(self, x, train):
    del train
    return nn.Conv(self.num_classes, (2 * self.reach + 1,) * 3, padding="VALID")(x), {}


@pytest.fixture
def volume():
  rng = np.random.default_rng(0)
  return Volume(rng.integers(-160, 240, (21, 17, 12)).astype(np.int16), np.eye(4))


@pytest.mark.parametrize("reach", [0, 1])
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_windows_leave_no_seam(config, volume, reach, overlap):
  """What a translation-invariant network says of the whole volume, the windows say too."""
  config = with_keys(config, {"inference.patch": (8, 8, 8), "inference.overlap": overlap})
  module = _Convolution(reach)
  variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)), False)
  system = SlidingWindow(config, module).use(variables)
  low, high = config.data.window_hu
  padded = np.pad(volume.array, reach, mode="edge")
  whole = ((padded - low) / (high - low)).astype(np.float32)
  logits, _ = module.apply(variables, whole[None, ..., None], False)
  np.testing.assert_allclose(system.predict(volume), jax.nn.softmax(logits[0]), atol=2e-6)


def test_a_volume_smaller_than_the_window_is_padded_and_cropped(config):
  module = _Convolution(0)
  variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)), False)
  system = SlidingWindow(config, module).use(variables)
  volume = Volume(np.arange(5 * 6 * 20).reshape(5, 6, 20).astype(np.int16), np.eye(4))
  probabilities = system.predict(volume)
  assert probabilities.shape == (5, 6, 20, 3)
  np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
  low, high = config.data.window_hu
  image = np.clip((volume.array - low) / (high - low), 0, 1).astype(np.float32)
  logits, _ = module.apply(variables, image[None, ..., None], False)
  np.testing.assert_allclose(probabilities, jax.nn.softmax(logits[0]), atol=2e-6)


def test_a_scan_is_padded_and_normalised_as_a_training_case_is(config):
  """By its minimum, evenly; by the mean and the sd of the whole scan without its padding."""
  config = with_keys(config, {"data.normalisation": "zscore"})
  hu = np.random.default_rng(1).integers(100, 240, (5, 6, 20)).astype(np.int16)
  mean, sd = measure_intensity(hu)
  case = pad_case(WorkingCase("a", hu, np.zeros(hu.shape, np.uint8), mean, sd), (14, 14, 14))
  module = _Convolution(1)
  variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)), False)
  whole = ((np.pad(case.image, 1, mode="edge") - mean) / sd).astype(np.float32)
  logits, _ = module.apply(variables, whole[None, ..., None], False)
  expected = jax.nn.softmax(logits[0])[5:10, 4:10]  # of 9 and 8 voxels more, 5 and 4 before
  found = SlidingWindow(config, module).use(variables).predict(Volume(hu, np.eye(4)))
  np.testing.assert_allclose(found, expected, atol=1e-5)


class _Place(nn.Module):
  """A network that looks at nothing but the place in its window, along X."""

  num_classes: int = 2
  output_margin = (0, 0, 0)

  @nn.compact
  def __call__(self, x, train):
    place = jnp.broadcast_to(jnp.arange(x.shape[1])[:, None, None, None], x.shape[1:])[None]
    return jnp.concatenate([0 * x, place / 2], -1), {}


def test_where_windows_disagree_the_one_whose_centre_is_nearer_weighs_more(config):
  """Two windows of eight voxels, four apart, by hand; and a scan in the middle of one."""
  config = with_keys(config, {"inference.patch": (8, 1, 1), "inference.overlap": 0.5})
  system = SlidingWindow(config, _Place()).use({})
  found, small = (
    system.predict(Volume(np.zeros((size, 1, 1), np.int16), np.eye(4)))[:, 0, 0, 1]
    for size in (12, 5)
  )
  place = np.arange(8)
  answer, weight = 1 / (1 + np.exp(-place / 2)), np.exp(-0.5 * (place - 3.5) ** 2)
  weight = np.maximum(weight, 1e-3)
  both = (answer[4:] * weight[4:] + answer[:4] * weight[:4]) / (weight[4:] + weight[:4])
  np.testing.assert_allclose(found, [*answer[:4], *both, *answer[4:]], rtol=1e-5)
  np.testing.assert_allclose(small, answer[2:7], rtol=1e-5)  # as a training case is padded


def test_class_weights_of_the_loss_divide_the_probabilities(config, volume):
  config = with_keys(config, {"inference.patch": (32, 32, 32)})
  module = _Convolution(0)
  variables = module.init(jax.random.key(0), jnp.zeros((1, 8, 8, 8, 1)), False)
  plain = SlidingWindow(config, module).use(variables).predict(volume)
  weights = (0.02, 0.5, 0.98)
  config = with_keys(config, {"inference.class_weights": weights})
  divided = SlidingWindow(config, module).use(variables).predict(volume)
  expected = plain / np.array(weights)
  np.testing.assert_allclose(divided, expected / expected.sum(-1, keepdims=True), atol=1e-6)


def test_windows_cover_the_volume_and_overlap_enough():
  for extent in range(8, 60):
    (starts,) = window_starts((extent,), (8,), 0.5)
    covered = np.zeros(extent, int)
    for start in starts:
      covered[start : start + 8] += 1
    assert covered.min() >= 1
    assert starts[0] == 0
    assert starts[-1] == extent - 8
    assert all(b - a <= 4 for a, b in pairwise(starts))


def test_weights_fall_from_the_centre_and_stay_positive():
  weights = gaussian_weights((9, 9, 16))[..., 0]
  assert weights[4, 4, 7] == weights.max() == weights[4, 4, 8]
  assert weights.min() == np.float32(1e-3)
  np.testing.assert_array_equal(weights, weights[::-1, ::-1, ::-1])
  # One sd (an eighth of the window) from the centre along X: exp(-1/2) of it.
  assert weights[5, 4, 7] / weights[4, 4, 7] == pytest.approx(np.exp(-0.5 * (8 / 9) ** 2), rel=1e-5)


def test_a_signal_in_the_first_window_which_compiles_is_acknowledged(config, capsys):
  """And in no later one."""
  sliding = SlidingWindow(config, _Convolution(0, num_classes=2))
  stop = StopRequest()
  patch = np.zeros((*config.window, 2), np.float32)

  def window(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    return patch

  sliding.window = window
  volume = Volume(np.zeros(config.window, np.int16), np.eye(4))
  with defer_signals(stop):
    for _ in range(2):
      sliding.predict(volume)
  assert stop.number == signal.SIGTERM
  assert capsys.readouterr().out.count("signal 15 has arrived: stops when this is done: ") == 1
