"""Two data sets in one schedule: an exact share, a sequence for each, the same bits everywhere."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.patches.batch import (
  StreamedBatch,
  crop_fixed_batches,
  make_plan,
  make_training_batch,
)
from attn_unet_jax.patches.device_source import make_resident
from attn_unet_jax.patches.host_cropper import HostCropper, stack_blocks
from attn_unet_jax.patches.schedule import SchedulePlan, sample_batch
from tests.configs import small_config, with_keys
from tfds_pancreas.abdomen.organs import ORGANS

PLAN = SchedulePlan(
  cases=8,
  batch_size=3,
  cases_per_block=2,
  patches_per_case=2,
  foreground_fraction=0.5,
  also=3,
  also_share=0.3,
)


@pytest.fixture(scope="module")
def drawn():
  sample = jax.jit(jax.vmap(lambda step: sample_batch(PLAN, 11, step)))(jnp.arange(60))
  return np.asarray(sample.case).ravel(), np.asarray(sample.foreground).ravel()


def test_the_share_is_exact_and_even(drawn):
  second = drawn[0] >= 5
  counts = np.cumsum(second)
  assert (np.abs(counts - 0.3 * np.arange(1, 181)) < 1).all()


@pytest.mark.parametrize(("is_second", "cases"), [(False, 5), (True, 3)])
def test_each_set_has_the_sequence_that_it_has_alone(drawn, is_second, cases):
  case, foreground = (values[(drawn[0] >= 5) == is_second] for values in drawn)
  alone = dataclasses.replace(PLAN, cases=cases, also=0)
  sample = jax.jit(jax.vmap(lambda step: sample_batch(alone, 11, step)))(jnp.arange(60))
  np.testing.assert_array_equal(case - 5 * is_second, np.asarray(sample.case).ravel()[: len(case)])
  np.testing.assert_array_equal(foreground, np.asarray(sample.foreground).ravel()[: len(case)])


def test_the_share_holds_after_hundreds_of_millions_of_patches():
  plan = dataclasses.replace(PLAN, batch_size=10)
  sample = jax.jit(lambda step: sample_batch(plan, 11, step))(2**26)
  assert int((sample.case >= 5).sum()) == 3


def test_fixed_patches_are_of_both_sets_by_their_share():
  """One own case and three of the second set, which gives two of eight patches."""
  keys = {"data.patch": (8, 8, 8), "data.also": "more", "data.also_share": 0.25}
  config = with_keys(small_config(), {**keys, "train.batch_size": 4, "train.loss_patches": 8})
  hu = [np.full((9, 9, 9), value, np.int16) for value in (0, 100, 100, 100)]
  cases = [WorkingCase(str(n), x, x > 50, 0.0, 1.0) for n, x in enumerate(hu)]
  batches = crop_fixed_batches(config, cases, also=3)
  assert sum(int(batch.label[:, 0, 0, 0].sum()) for batch in batches) == 2


# Images of HU and, as a second set, maps to paint on.
KEYS = {
  "data.patch": (8, 8, 8),
  "data.spacing_mm": 3.0,
  "data.also": "maps",
  "data.also_share": 0.5,
  "train.batch_size": 4,
  "painting.enabled": True,
  "augment.flip": (0.0, 0.0, 0.0),
}


@pytest.fixture(scope="module")
def mixed():
  rng = np.random.default_rng(0)
  hu = rng.integers(-200, 300, (9, 10, 12)).astype(np.int16)
  organs = np.full((12, 11, 9), ORGANS["liver"], np.uint8)
  organs[3:8, 3:8, 3:8] = ORGANS["pancreas"]
  label = (organs == ORGANS["pancreas"]).astype(np.uint8)
  cases = [WorkingCase("scan", hu, (hu > 250).astype(np.uint8), 0.0, 1.0)]
  cases.append(WorkingCase("map", organs, label, 0.0, 1.0))
  config = with_keys(small_config(), KEYS)
  data = make_resident(cases, config.data.patch, also=1)
  batch = jax.jit(lambda data: make_training_batch(config, data, 7))(data)
  return config, cases, data, jax.device_get(batch)


@pytest.mark.slow
def test_scans_stay_as_they_are_and_maps_are_painted(mixed):
  config, cases, data, batch = mixed
  assert data.image.dtype == np.int16
  assert data.is_map.tolist() == [False, True]
  which = np.asarray(sample_batch(make_plan(config, 2, 1), config.seed, 7).case)
  assert sorted(which) == [0, 0, 1, 1]
  low, high = config.data.window_hu
  hu = batch.image[..., 0] * (high - low) + low
  patches = np.lib.stride_tricks.sliding_window_view(cases[0].image, (8, 8, 8)).reshape(-1, 8, 8, 8)
  for patch in hu[which == 0]:
    assert (np.abs(np.clip(patches, low, high) - patch).max((1, 2, 3)) < 0.01).any()
  # Not the numbers of a few materials, of which the pancreas is the one with a label.
  assert all(len(np.unique(np.rint(patch))) > 20 for patch in hu[which == 1])


@pytest.mark.slow
def test_a_division_and_the_host_make_the_same_patches(mixed):
  config, cases, data, batch = mixed
  divided = jax.jit(lambda data: make_training_batch(config, data, 7, shares=2))(data)
  plan = make_plan(config, 2, 1)
  cropper = HostCropper(cases, plan, config.seed, (8, 8, 8), (8, 8, 8), mixed=True)
  streamed = StreamedBatch(jnp.int32(7), stack_blocks([cropper(7, row) for row in range(4)]))
  by_host = jax.jit(lambda feed: make_training_batch(config, feed, 7))(streamed)
  for other in (divided, by_host):
    np.testing.assert_array_equal(other.label, batch.label)
    # The programs differ, and paint to the last bit but one.
    np.testing.assert_allclose(other.image, batch.image, atol=1e-6)
