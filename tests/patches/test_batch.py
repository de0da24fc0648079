import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.augment.histogram import is_matched
from attn_unet_jax.augment.occasional import OCCASIONAL
from attn_unet_jax.augment.options import Augmentation
from attn_unet_jax.augment.patch import augment_patch, source_shape
from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.labels import SHARE_STEPS, UNLABELLED
from attn_unet_jax.patches.batch import (
  crop_fixed_batches,
  make_plan,
  make_training_batch,
  make_training_cropper,
  measure_foreground,
  normalise_intensity,
)
from attn_unet_jax.patches.device_source import make_resident
from attn_unet_jax.patches.schedule import (
  _REFERENCE_STREAM,
  SchedulePlan,
  patch_origin_and_key,
  sample_batch,
)
from tests.configs import with_keys


@pytest.fixture
def config(config):
  return with_keys(config, {"data.patch": (8, 8, 8)})


@pytest.fixture
def case():
  rng = np.random.default_rng(0)
  image = rng.integers(-200, 300, (12, 13, 14)).astype(np.int16)
  return WorkingCase("a", image, (image > 200).astype(np.uint8), float(image.mean()), 7.0)


@pytest.fixture
def data(config, case):
  return make_resident([case], config.data.patch)


def test_window_maps_its_ends_to_zero_and_one(config):
  config = with_keys(config, {"data.window_hu": (-100.0, 300.0)})
  hu = jnp.array([-1000, -100, 100, 300, 3000], jnp.int16)
  np.testing.assert_allclose(normalise_intensity(config.data, hu, 0.0, 1.0), [0, 0, 0.5, 1, 1])


def test_zscore_uses_the_scans_statistics(config):
  config = with_keys(config, {"data.normalisation": "zscore"})
  hu = jnp.array([10, 20, 30], jnp.int16)
  np.testing.assert_allclose(normalise_intensity(config.data, hu, 20.0, 5.0), [-2, 0, 2])


def test_a_batch_is_a_function_of_seed_and_step(config, data):
  first, again = make_training_batch(config, data, 3), make_training_batch(config, data, 3)
  np.testing.assert_array_equal(first.image, again.image)
  assert first.image.shape == (2, 8, 8, 8, 1)
  assert first.image.dtype == jnp.float32
  assert (np.asarray(make_training_batch(config, data, 4).image) != np.asarray(first.image)).any()
  config = with_keys(config, {"seed": 1})
  assert (np.asarray(make_training_batch(config, data, 3).image) != np.asarray(first.image)).any()


def test_labels_follow_images_through_cut_and_flips(config, data):
  config = with_keys(config, {"augment.flip": (0.5, 0.5, 0.5)})
  batch = make_training_batch(config, data, 0)
  low, high = config.data.window_hu
  hu = np.asarray(batch.image)[..., 0] * (high - low) + low
  np.testing.assert_array_equal(batch.label, hu > 200.5)


def test_fixed_patches_are_not_augmented_and_not_those_of_the_training(config, case, data):
  # Three of batches of two.
  config = with_keys(config, {"augment.intensity_shift": (5.0, 5.0), "train.loss_patches": 3})
  batch, another = crop_fixed_batches(config, [case])
  assert (np.asarray(another.image) != np.asarray(batch.image)).any()
  assert batch.image.max() <= 1.0
  assert make_training_batch(config, data, 0).image.min() >= 5.0
  config = with_keys(
    config, {"augment.intensity_shift": (0.0, 0.0), "augment.flip": (0.0, 0.0, 0.0)}
  )
  assert (np.asarray(make_training_batch(config, data, 0).image) != np.asarray(batch.image)).any()
  config = with_keys(config, {"seed": config.seed + 1})
  assert (np.asarray(crop_fixed_batches(config, [case])[0].image) != np.asarray(batch.image)).any()


def test_a_network_that_answers_for_less_is_asked_about_the_whole_scan(config, data):
  """Of a patch as large as the scan, with a margin, the centre may lie anywhere within it."""
  config = with_keys(
    config,
    {"data.patch": (12, 13, 14), "augment.flip": (0.0, 0.0, 0.0), "data.foreground_fraction": 0.0},
  )
  margin = (4, 4, 4)
  low, high = config.data.window_hu
  cut, seen = jax.jit(lambda step: make_training_batch(config, data, step, margin).image), set()
  for step in range(30):
    image = np.asarray(cut(step))[..., 0]
    assert image.shape[1:] == (12, 13, 14)
    for patch in np.rint(image * (high - low) + low):
      scan = np.clip(np.asarray(data.image[0]), low, high)
      centre = patch[4:-4, 4:-4, 4:-4]
      windows = np.lib.stride_tricks.sliding_window_view(scan, centre.shape)
      (corner,) = np.argwhere((windows == centre).all((3, 4, 5)))
      seen.add(int(corner[0]))
  assert {0, 8} <= seen


def test_the_part_of_foreground_is_that_of_the_batches_of_a_training(config, case, data):
  config = with_keys(config, {"data.foreground_fraction": 0.5})
  unlabelled = dataclasses.replace(case, label=case.label.copy())
  unlabelled.label[::2] = 255
  for cases in ([case], [unlabelled]):
    held = make_resident(cases, config.data.patch)
    labels = np.stack([make_training_batch(config, held, step).label for step in range(3)])
    expected = np.sum(labels == 1) / np.sum(labels != 255)
    assert measure_foreground(config, cases, 3) == pytest.approx(expected)
  margin = (2, 2, 2)  # what the network does not answer for is not counted
  held = make_resident([case], (4, 4, 4))
  labels = np.asarray(make_training_batch(config, held, 0, margin).label)[:, 2:-2, 2:-2, 2:-2]
  assert measure_foreground(config, [case], 1, margin) == pytest.approx(labels.mean())


def test_corners_say_where_a_steps_patches_come_from(config, case, data):
  config = with_keys(config, {"augment.flip": (0.0, 0.0, 0.0)})
  turned = with_keys(config, {"augment.rotate_deg": (0.0, 0.0, 15.0)})
  blocks = make_training_cropper(turned, [case])  # more than the patch is cut
  low, high = config.data.window_hu
  batch = make_training_batch(config, data, 5)
  (first, one), (second, other) = blocks.patch_corners(5)
  assert first == second == 0
  assert one != other
  for image, (x, y, z) in zip(batch.image[..., 0], (one, other), strict=True):
    piece = case.image[x : x + 8, y : y + 8, z : z + 8]
    np.testing.assert_allclose(image, (np.clip(piece, low, high) - low) / (high - low), atol=1e-6)


def test_the_schedule_goes_by_the_configs_own_keys(config):
  config = with_keys(
    config,
    {
      "train.batch_size": 3,
      "data.cases_per_block": 5,
      "data.patches_per_case": 7,
      "data.foreground_fraction": 0.25,
      "augment.histogram_probability": 0.5,
    },
  )
  assert make_plan(config, 11) == SchedulePlan(11, 3, 5, 7, 0.25, references=True)


EIGHT = {"augment.flip": (0.0, 0.0, 0.0), "train.batch_size": 8}


@pytest.fixture
def pair(config, case):
  """The case, and what is 3 times its HU less 400, in one set of two."""
  hu = (3 * case.image.astype(np.int32) - 400).astype(np.int16)
  other = WorkingCase("b", hu, case.label, 3 * case.mean - 400, 3 * case.sd)
  return make_resident([case, other], config.data.patch, histograms=True)


def test_a_matched_patch_has_the_other_scans_intensities(config, pair):
  config = with_keys(config, EIGHT | {"data.window_hu": (-2000.0, 2000.0)})
  matching = with_keys(config, {"augment.histogram_probability": 1.0})
  plain, matched = (
    jax.jit(lambda data, keys=keys: make_training_batch(keys, data, 0).image)(pair) * 4000 - 2000
    for keys in (config, matching)
  )
  which = np.asarray(sample_batch(make_plan(config, 2), config.seed, 0).case)
  assert set(which) == {0, 1}
  for case, before, after in zip(which, plain, matched, strict=True):
    expected = (before + 400) / 3 if case else 3 * before - 400
    np.testing.assert_allclose(after, expected, atol=0.01)


def test_a_matched_patch_is_normalised_as_the_other_scan_is(config, pair):
  """Of scans that differ by scale and shift alone, z-scores do not tell whose histogram it is."""
  config = with_keys(config, EIGHT | {"data.normalisation": "zscore"})
  plain = make_training_batch(config, pair, 0)
  config = with_keys(config, {"augment.histogram_probability": 1.0})
  np.testing.assert_allclose(make_training_batch(config, pair, 0).image, plain.image, atol=1e-3)


def test_without_matching_the_program_is_as_if_there_were_none(config, data, pair):
  """No quantiles are held or looked up, and where a patch is not chosen all draws are the same."""
  config = with_keys(
    config, EIGHT | {"augment.flip": (0.5, 0.5, 0.5), "augment.noise_sd": (0.0, 0.5)}
  )
  trace = jax.make_jaxpr(lambda data, step: make_training_batch(config, data, step))
  assert data.quantiles is None
  assert "searchsorted" not in str(trace(data, 0))
  plain = make_training_batch(config, pair, 0)
  config = with_keys(config, {"augment.histogram_probability": 1e-30})
  assert "searchsorted" in str(trace(pair, 0))
  np.testing.assert_allclose(make_training_batch(config, pair, 0).image, plain.image, atol=1e-6)


@pytest.mark.slow
def test_no_two_draws_of_a_patch_share_a_key(monkeypatch):
  """Of its place, its reference and its augmentation: else one would tell of the other."""
  key, patch = jax.random.key(3), (4, 4, 4)
  drawn, divided = [jax.random.fold_in(key, _REFERENCE_STREAM)], []

  def noted(name, keys):
    real = getattr(jax.random, name)

    def call(key, *rest, **keywords):
      keys.append(key)
      return real(key, *rest, **keywords)

    monkeypatch.setattr(jax.random, name, call)

  for name in ("uniform", "normal", "randint", "bernoulli"):
    noted(name, drawn)
  noted("split", divided)
  everything = Augmentation(
    flip=(0.5,) * 3,
    rotate_deg=(5.0,) * 3,
    scale=(0.9, 1.1),
    shift=(0.1,) * 3,
    corner_scale=0.1,
    deform_sd=(0.5,) * 3,
    intensity_scale=(0.9, 1.1),
    intensity_shift=(-0.1, 0.1),
    noise_sd=(0.0, 0.1),
    noise_probability=0.5,
    **{f"{name}_probability": 0.5 for name in OCCASIONAL},
  )
  block = source_shape(patch, everything)
  size, positions = jnp.array([9, 9, 9]), jnp.array([[4, 4, 4], [5, 5, 5]])
  _, augmentation = patch_origin_and_key(
    key, jnp.bool(True), size, positions, jnp.int32(2), patch, block
  )
  is_matched(jax.random.wrap_key_data(augmentation), 0.5)
  cut = jnp.zeros(block)
  augment_patch(
    jax.random.wrap_key_data(augmentation), cut, cut.astype(jnp.uint8), patch, everything
  )
  names = [str(jax.random.key_data(key)) for key in drawn]
  assert len(set(names)) == len(names) == 29
  assert not set(names) & {str(jax.random.key_data(key)) for key in divided}


def test_soft_labels_reach_the_network_as_shares(config):
  """From either source, with what is unlabelled as it was; their mean is the foreground."""
  rng = np.random.default_rng(0)
  image = rng.integers(-200, 300, (8, 8, 8)).astype(np.int16)
  label = rng.choice([0, 127, SHARE_STEPS, UNLABELLED], image.shape).astype(np.uint8)
  case = WorkingCase("a", image, label, 0.0, 1.0)
  soft = {"data.label_resampling": "occupancy", "augment.flip": (0.0, 0.0, 0.0)}
  config = with_keys(config, {**soft, "data.normalisation": "window"})
  (batch, *_) = crop_fixed_batches(config, [case])
  expected = np.where(label == UNLABELLED, UNLABELLED, label / np.float32(SHARE_STEPS))
  assert batch.label.dtype == jnp.float32
  np.testing.assert_allclose(batch.label[0], expected, atol=1e-6)
  known = label != UNLABELLED
  assert measure_foreground(config, [case], 1) == pytest.approx(expected[known].mean(), rel=1e-5)
