"""The streaming source gives the resident source's patches, and reads no more than it must."""

import threading
import time

import jax
import numpy as np
import psutil
import pytest

from attn_unet_jax.augment.patch import source_shape
from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.patches import streaming_source
from attn_unet_jax.patches.batch import (
  StreamedBatch,
  make_plan,
  make_training_cropper,
  output_shape,
)
from attn_unet_jax.patches.device_source import crop_patches, make_resident
from attn_unet_jax.patches.host_cropper import HostCropper
from attn_unet_jax.patches.schedule import SchedulePlan, sample_batch
from attn_unet_jax.patches.streaming_source import StreamingSource
from attn_unet_jax.runtime.errors import UserError
from tests.configs import with_keys

SHAPES = [(20, 26, 24), (28, 10, 24), (16, 16, 16), (30, 9, 8), (40, 33, 20)]


def _case(index, shape):
  rng = np.random.default_rng(index)
  image = rng.integers(-1000, 1000, shape).astype(np.int16)
  label = (image > 900).astype(np.uint8) * (index != 2)  # one without foreground
  return WorkingCase(str(index), image, label, 1.5 * index, 2.0 + index)


@pytest.fixture(scope="module")
def cases():
  return [_case(index, shape) for index, shape in enumerate(SHAPES)]


class _Counted(list):
  """Counts how often each case is read."""

  def __init__(self, cases, seconds=0.0):
    super().__init__(cases)
    self.read, self._seconds = [], seconds

  def __getitem__(self, index):
    self.read.append(index)
    time.sleep(self._seconds)
    return super().__getitem__(index)


def _fed(step, blocks):
  return StreamedBatch(step, jax.device_put(blocks))


@pytest.mark.parametrize(
  ("seed", "margin", "matched"), [(0, (0, 0, 0), 0.0), (5, (2, 3, 1), 0.5), (1, (0, 0, 0), 1.0)]
)
def test_patches_are_those_of_the_resident_source_bit_for_bit(config, cases, seed, margin, matched):
  """Scans smaller than the patch, networks with a margin, blocks larger than the patch."""
  config = with_keys(
    config,
    {
      "augment.histogram_probability": matched,
      "seed": seed,
      "augment.rotate_deg": (0.0, 0.0, 15.0),
      "augment.shift": (0.0, 0.1, 0.0),
      "train.batch_size": 3,
      "data.cases_per_block": 2,
      "data.patches_per_case": 3,
    },
  )
  patch = output_shape(config.data.patch, margin)
  block = source_shape(config.data.patch, config.augment)
  assert block[0] > config.data.patch[0]
  data = make_resident(cases, patch, histograms=matched > 0)
  on_device = jax.jit(
    lambda data, step: crop_patches(
      data, sample_batch(make_plan(config, 5), seed, step), patch, block
    )
  )
  source = StreamingSource(make_training_cropper(config, cases, margin), range(3), _fed)
  steps, seen = range(7, 29), set()
  with source.feeds(steps) as feeds:
    for step, fed in zip(steps, feeds, strict=True):
      assert fed.step == step
      wanted = on_device(data, np.int32(step))
      assert (wanted.reference is not None) == (matched > 0)
      assert jax.tree.structure(fed.blocks) == jax.tree.structure(wanted)
      for ours, theirs in zip(*map(jax.tree.leaves, (fed.blocks, wanted)), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
      seen |= set(np.asarray(fed.blocks.mean).tolist())
  assert len(seen) == len(cases)


def test_each_host_cuts_its_own_rows(config, cases):
  config = with_keys(config, {"train.batch_size": 4})
  cutter = make_training_cropper(config, cases)
  with StreamingSource(cutter, range(4), _fed).feeds(range(3)) as feeds:
    whole = [jax.device_get(fed.blocks) for fed in feeds]
  with StreamingSource(cutter, [1, 3], _fed).feeds(range(3)) as feeds:
    part = [jax.device_get(fed.blocks) for fed in feeds]
  for all_rows, rows in zip(whole, part, strict=True):
    np.testing.assert_array_equal(all_rows.image[[1, 3]], rows.image)
    np.testing.assert_array_equal(all_rows.key[[1, 3]], rows.key)


def test_a_case_is_read_once_a_block_however_many_threads_want_it(cases):
  counted = _Counted(cases, seconds=0.02)
  size = SchedulePlan(
    cases=5, batch_size=2, cases_per_block=2, patches_per_case=4, foreground_fraction=0.5
  )
  cutter = HostCropper(counted, size, 0, (8, 8, 8), (8, 8, 8))
  with StreamingSource(cutter, range(2), _fed).feeds(range(20)) as feeds:
    assert len(list(feeds)) == 20  # 40 patches, 5 blocks of two cases
  assert len(counted.read) <= 10


def test_a_patch_that_is_late_finds_its_case_open(cases):
  """The last of a block of two cases, cut when those of the next are open already."""
  counted = _Counted(cases)
  size = SchedulePlan(
    cases=5, batch_size=2, cases_per_block=2, patches_per_case=2, foreground_fraction=0.5
  )
  cutter = HostCropper(counted, size, 0, (8, 8, 8), (8, 8, 8))
  for place in ((0, 0), (0, 1), (1, 0), (2, 0), (2, 1), (1, 1)):
    cutter(*place)
  assert len(counted.read) == len(set(counted.read)) == 4


def test_a_case_is_read_once_by_a_machine_of_many_cores(cases, monkeypatch):
  """Their threads reach beyond two blocks; only what they reach stays open."""
  counted = _Counted([cases[index % 5] for index in range(48)], seconds=0.02)
  size = SchedulePlan(
    cases=48, batch_size=2, cases_per_block=2, patches_per_case=4, foreground_fraction=0.5
  )
  cutter = HostCropper(counted, size, 0, (8, 8, 8), (8, 8, 8))
  monkeypatch.setattr(streaming_source, "count_usable_cores", lambda: 64)
  with StreamingSource(cutter, range(2), _fed).feeds(range(96)) as feeds:
    assert len(list(feeds)) == 96  # 192 patches, 24 blocks of two cases
  assert len(counted.read) == 48
  assert len(cutter._open._held) <= 2 * (2 + 66 // 8)


def test_nothing_runs_on_when_the_steps_are_broken_off(config, cases):
  before = set(threading.enumerate())
  with StreamingSource(make_training_cropper(config, cases), range(2), _fed).feeds(
    range(1000)
  ) as feeds:
    next(feeds)
  for thread in set(threading.enumerate()) - before:
    thread.join(timeout=30)
    assert not thread.is_alive()


def test_no_scan_is_begun_once_the_steps_are_broken_off(config, cases, monkeypatch):
  """The one that is being prepared then is finished."""
  began, left = threading.Event(), threading.Event()

  class Slow(_Counted):
    def __getitem__(self, index):
      began.set()
      assert left.wait(60)
      return super().__getitem__(index)

  slow = Slow(cases)
  config = with_keys(
    config, {"data.cases_per_block": 5, "data.patches_per_case": 1, "train.batch_size": 5}
  )
  monkeypatch.setattr(streaming_source, "count_usable_cores", lambda: 1)
  with StreamingSource(make_training_cropper(config, slow), range(5), _fed).feeds(
    range(9)
  ) as feeds:
    assert began.wait(60)
    close = feeds.close
    feeds.close = lambda: (left.set(), close())
  assert len(slow.read) == 1


def test_threads_do_the_work_and_no_processes(config, cases):
  """All of them use the cases that are open; processes would each open their own."""
  before, threads = psutil.Process().children(recursive=True), set(threading.enumerate())
  with StreamingSource(make_training_cropper(config, cases), range(2), _fed).feeds(
    range(1000)
  ) as feeds:
    next(feeds)
    assert psutil.Process().children(recursive=True) == before
    assert set(threading.enumerate()) - threads


def test_a_case_that_cannot_be_read_is_the_users_error(config, cases):
  class Broken(list):
    def __getitem__(self, index):
      raise UserError(f"{index}.nii.gz: truncated")

  source = StreamingSource(make_training_cropper(config, Broken(cases)), range(2), _fed)
  with source.feeds(range(5)) as feeds, pytest.raises(UserError, match="truncated"):
    next(feeds)


def test_a_start_at_a_later_step_is_fed_what_that_step_always_was(config, cases):
  source = StreamingSource(make_training_cropper(config, cases), range(2), _fed)
  with source.feeds(range(12)) as feeds:
    *_, last = feeds
  with source.feeds(range(11, 12)) as feeds:
    again = next(feeds)
  for one, other in zip(jax.tree.leaves(last), jax.tree.leaves(again), strict=True):
    np.testing.assert_array_equal(one, other)
