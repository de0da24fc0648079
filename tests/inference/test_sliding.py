import os
import signal
from itertools import pairwise
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.inference import planner
from attn_unet_jax.inference import sliding as module
from attn_unet_jax.inference.plan import window_starts
from attn_unet_jax.inference.sliding import SlidingWindow, gaussian_weights
from attn_unet_jax.patches.padded_case import pad_case
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.signals import StopRequest, defer_signals
from attn_unet_jax.volumes.intensity import measure_intensity
from attn_unet_jax.volumes.volume import Volume
from tests.configs import with_keys


class _Convolution(nn.Module):
  """A network whose answer at a voxel depends on its neighbours at most `reach` away."""

  reach: int
  num_classes: int = 3
  patch_multiple = (1, 1, 1)

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


class _Compiled:
  """What `jax.jit` returns, as far as the sliding window uses it."""

  def __init__(self, lower, call):
    self.lower, self._call = lower, call

  def __call__(self, *arguments):
    return self._call(*arguments)


class _Place(nn.Module):
  """A network that looks at nothing but the place in its window, along X."""

  num_classes: int = 2
  patch_multiple = (1, 1, 1)
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

  def lower(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    return SimpleNamespace(compile=lambda: SimpleNamespace(memory_analysis=lambda: None))

  sliding.window = _Compiled(lower, lambda *_: patch)
  volume = Volume(np.zeros(config.window, np.int16), np.eye(4))
  with defer_signals(stop):
    for _ in range(2):
      sliding.predict(volume)
  assert stop.number == signal.SIGTERM
  assert capsys.readouterr().out.count("signal 15 has arrived: stops when this is done: ") == 1


class _Identity(nn.Module):
  """A network of two classes whose probability is the image; it says what decides its answer."""

  answer_depends_on: str
  reach: int = 0
  num_classes: int = 2
  patch_multiple = (4, 4, 4)

  @property
  def output_margin(self):
    return (self.reach,) * 3

  @nn.compact
  def __call__(self, x, train):
    inner = slice(self.reach, -self.reach or None)
    x = jnp.clip(x[:, inner, inner, inner], 1e-6, 1 - 1e-6)
    return jnp.concatenate([jnp.log1p(-x), jnp.log(x)], -1), {}


@pytest.fixture
def thin():
  """A body of soft tissue, thin along Y, in much air."""
  hu = np.full((30, 60, 17), -1000, np.int16)
  hu[4:28, 30:50] = np.random.default_rng(0).integers(-150, 230, (24, 20, 17))
  return Volume(hu, np.diag([5.0, 5.0, 5.0, 1.0]))


@pytest.mark.parametrize("depends_on", ["surroundings", "borders", "window"])
@pytest.mark.parametrize("window", ["patch", "plan", "large"])
@pytest.mark.parametrize(("overlap", "reach", "most"), [(0.0, 2, 2**24), (0.5, 0, 2**13)])
def test_the_identity_is_what_it_was_given(
  config, thin, monkeypatch, window, depends_on, overlap, reach, most
):
  """Whatever the windows, their overlap, the margin, the box of the body and the memory."""
  monkeypatch.setattr(planner, "MOST_VOXELS", most)
  changes = {"data.patch": (16, 16, 16), "inference.overlap": overlap, "inference.window": window}
  config = with_keys(config, changes)
  found = SlidingWindow(config, _Identity(depends_on, reach)).use({}).predict(thin)
  low, high = config.data.window_hu
  image = np.clip((thin.array - low) / (high - low), 0, 1)
  np.testing.assert_allclose(found[..., 1], image, atol=1e-4)
  np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)


def test_the_air_around_the_body_is_background_and_nothing_looks_at_it(config, thin):
  config = with_keys(config, {"data.patch": (16, 16, 16)})
  seen = []

  def window(_, hu, *__):
    seen.append(hu.max())
    return np.full((*hu.shape, 2), [0.1, 0.9], np.float32)

  for asked, air in (("plan", [1, 0]), ("patch", [0.1, 0.9])):
    sliding = SlidingWindow(
      with_keys(config, {"inference.window": asked}), _Identity("borders")
    ).use({})
    sliding.window = _Compiled(sliding.window.lower, window)
    found = sliding.predict(thin)
    np.testing.assert_allclose(found[:, :28], np.broadcast_to(air, (30, 28, 17, 2)), rtol=1e-6)
    # Two voxels of 10 mm beyond the skin are looked at.
    np.testing.assert_allclose(
      found[4:28, 28:52], np.broadcast_to([0.1, 0.9], (24, 24, 17, 2)), rtol=1e-6
    )
    assert (min(seen) == -1000) == (asked == "patch")


class _Pooled(nn.Module):
  """A network that pools: an answer depends on where pairs of voxels begin, and on no border."""

  num_classes: int = 2
  patch_multiple = (2, 2, 2)
  output_margin = (2, 2, 2)
  answer_depends_on = "surroundings"

  @nn.compact
  def __call__(self, x, train):
    pooled = nn.max_pool(x, (2, 2, 2), (2, 2, 2))
    x = jnp.repeat(jnp.repeat(jnp.repeat(pooled, 2, 1), 2, 2), 2, 3)
    y = nn.avg_pool(x, (3, 3, 3))[:, 1:-1, 1:-1, 1:-1]
    return jnp.concatenate([y, -y], -1), {}


def test_a_network_that_no_border_reaches_says_the_same_whatever_memory_allows(
  config, thin, monkeypatch
):
  config = with_keys(config, {"data.patch": (8, 8, 8), "data.normalisation": "zscore"})
  config = with_keys(config, {"inference.window": "plan"})
  found = []
  for most in (2**24, 20**3, 12**3):
    monkeypatch.setattr(planner, "MOST_VOXELS", most)
    found.append(SlidingWindow(config, _Pooled()).use({}).predict(thin))
  np.testing.assert_allclose(found[1], found[0], atol=1e-6)
  np.testing.assert_allclose(found[2], found[0], atol=1e-6)
  whole = with_keys(config, {"inference.patch": (38, 68, 24), "inference.window": "patch"})
  once = SlidingWindow(whole, _Pooled()).use({}).predict(thin)
  # One window that holds all, padded evenly; its padding is another one.
  inner = slice(4, 28), slice(30, 50), slice(3, -3)
  np.testing.assert_allclose(found[0][inner], once[inner], atol=1e-6)


def test_windows_that_the_device_cannot_hold_are_halved(config, thin, capsys):
  config = with_keys(config, {"data.patch": (16, 16, 16), "inference.window": "large"})
  sliding = SlidingWindow(config, _Identity("borders"), announce=True).use({})
  window, tried = sliding.window, []

  def fail_if_large(variables, hu, *intensity):
    tried.append(hu.shape)
    if hu.size > 18000:
      raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
    return window(variables, hu, *intensity)

  sliding.window = _Compiled(window.lower, fail_if_large)
  found = sliding.predict(thin)
  assert tried[0] == (32, 24, 24)
  assert tried[-1] == (16, 24, 24)
  low, high = config.data.window_hu
  np.testing.assert_allclose(
    found[..., 1], np.clip((thin.array - low) / (high - low), 0, 1), atol=1e-4
  )
  first, refused, second = capsys.readouterr().out.splitlines()
  assert first.startswith("windows of 32x24x24 voxels: 1 in a scan of 30x60x17, 0.6 times")
  assert refused == "windows of 32x24x24 voxels do not fit into the device's memory"
  assert second.startswith("windows of 16x24x24 voxels: 3 in a scan")
  sliding.predict(thin)
  assert capsys.readouterr().out == ""
  assert tried[-1] == (16, 24, 24)


def test_no_smaller_window_than_the_patch_is_tried(config, thin):
  sliding = SlidingWindow(with_keys(config, {"data.patch": (16, 16, 16)}), _Identity("borders"))

  def fail(*_):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

  sliding.window = _Compiled(sliding.use({}).window.lower, fail)
  said = r"windows of 16x16x16 voxels do not fit into the device's memory, and this run takes no"
  with pytest.raises(UserError, match=said):
    sliding.predict(thin)


def test_how_long_a_scan_takes_is_said_after_its_first_windows(config, thin, monkeypatch, capsys):
  config = with_keys(config, {"data.patch": (16, 16, 16)})
  sliding = SlidingWindow(config, _Identity("borders"), announce=True).use({})
  window, clock = sliding.window, [0.0]

  def take_seconds(*arguments):
    clock[0] += 1.5
    return window(*arguments)

  sliding.window = _Compiled(window.lower, take_seconds)
  monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock[0]))
  sliding.predict(thin)
  windows, took = capsys.readouterr().out.splitlines()
  assert windows.startswith("windows of 16x16x16 voxels: 42 in a scan")
  assert took == "a window takes 1.5 s: the scan about 1m03s"
  sliding.predict(thin)  # the next scan's windows are known
  assert capsys.readouterr().out == ""
  several = SlidingWindow(config, _Identity("borders"), announce=True).use({})
  other = several.share({})
  several.window = _Compiled(window.lower, take_seconds)
  several.predict(thin)
  took = "a window takes 1.5 s: the scan by 2 networks about 2m06s"
  assert capsys.readouterr().out.splitlines()[1:] == [took]
  other.predict(thin)  # whose windows are those of the first
  assert capsys.readouterr().out == ""


def test_a_window_takes_no_more_than_the_memory_that_is_free(config, thin, monkeypatch):
  """Two windows, where the one that covers the body would take more."""
  config = with_keys(config, {"data.patch": (16, 16, 16), "inference.window": "large"})
  sliding = SlidingWindow(config, _Identity("borders")).use({})
  taken = []
  monkeypatch.setattr(planner, "free_bytes", lambda: 1_000_000)
  stats = SimpleNamespace(temp_size_in_bytes=0, output_size_in_bytes=0)

  def lower(_, hu, *__):
    taken.append(hu.shape)
    stats.temp_size_in_bytes = 50 * int(np.prod(hu.shape))
    return SimpleNamespace(compile=lambda: SimpleNamespace(memory_analysis=lambda: stats))

  sliding.window = _Compiled(lower, sliding.window)
  sliding.predict(thin)
  assert taken == [(32, 24, 24), (32, 16, 24)]
