"""What memory cannot hold is refused before it is computed."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from attn_unet_jax.runtime import memory
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.volume import Grid, Volume
from attn_unet_jax.workflows.answer_memory import MemoryGuard, require_answer_memory
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.options import AnswerOptions
from tests.configs import with_keys

GRID = Grid((100, 100, 100), np.eye(4))  # a million voxels, of the working grid too
PLAIN = AnswerOptions()


@pytest.fixture
def require(config, monkeypatch):
  """Checks a scan of GRID with so many free bytes for each of its voxels."""
  run = LoadedRun(with_keys(config, {"data.spacing_mm": 1.0}), ("pancreas",), None, 1)

  def check(free, options=PLAIN, **changes):
    monkeypatch.setattr(memory, "free_bytes", lambda: int(free * 1e6))
    require_answer_memory(GRID, dataclasses.replace(run, **changes), options, "scan.nii")

  return check


def test_each_average_takes_an_array_of_probabilities(require, config):
  # Two classes of 4 bytes; the image twice is 4 more; a byte for each member.
  for changes, needed in (
    ({}, 12),
    ({"mirrors": (1,)}, 20),
    ({"mirrors": (1, 2)}, 28),
    ({"members": (config, config)}, 22),
    ({"members": (config, config), "mirrors": (0,)}, 30),
    ({"scales": (0.9,)}, 28),
    ({"scales": (0.5, 2.0)}, 8 * 12 + 16),
  ):
    require(needed, **changes)
    with pytest.raises(UserError, match=r"scan\.nii: the probabilities that are averaged take"):
      require(needed - 0.1, **changes)


def test_cases_that_are_scored_are_checked_one_by_one(config, monkeypatch):
  asked = []
  system = SimpleNamespace(predict=lambda volume: asked.append(volume) or "answer")
  run = LoadedRun(config, ("pancreas",), system, 1, mirrors=(1, 2))
  volume = Volume(np.zeros((10, 20, 30), np.int16), np.eye(4))
  monkeypatch.setattr(memory, "free_bytes", lambda: 28 * volume.array.size)
  assert MemoryGuard(run).predict(volume) == "answer"
  monkeypatch.setattr(memory, "free_bytes", lambda: 28 * volume.array.size - 1)
  with pytest.raises(UserError, match=r"a case of 10 x 20 x 30 voxels: .*leave out axes of --tta"):
    MemoryGuard(run).predict(volume)
  assert asked == [volume]


def test_maps_are_counted_on_the_grid_of_the_scan(require):
  require(12, AnswerOptions(save_probabilities=True), locate=lambda _: None)
  require(8, AnswerOptions(save_uncertainty=True), locate=lambda _: None)
  with pytest.raises(UserError, match=r"maps on its own grid of 100 x 100 x 100 voxels take"):
    require(11.9, AnswerOptions(save_probabilities=True), locate=lambda _: None)
