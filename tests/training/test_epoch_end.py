"""What an epoch's row of the log says."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from attn_unet_jax.patches.batch import NetworkInput
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training import epoch_end
from attn_unet_jax.training.epoch_end import EpochReport, ValidationScore
from attn_unet_jax.training.inputs import PARTS
from attn_unet_jax.training.state import create_state
from attn_unet_jax.training.step import fixed_loss
from tests.configs import with_keys
from tests.inference.test_attention import Gated
from tests.line import Line


@pytest.mark.parametrize(
  ("step", "skipped", "rate"), [(4, 0, 0.3), (4, 1, 0.2), (4, 3, 0.0), (4, 4, 0.0)]
)
def test_the_rate_is_that_of_the_last_update(config, step, skipped, rate):
  """Which the schedule counts without those that were left out: 0, 0.1, 0.2, ... here."""
  config = with_keys(config, {"optimizer.learning_rate": 1.0, "optimizer.warmup_steps": 10})
  module, patch = Line(), np.zeros((1, 2, 2, 2), np.float32)
  fixed = {part: [NetworkInput(patch[..., None], patch.astype(np.uint8))] for part in PARTS}
  state = create_state(config, module).replace(step=np.int32(step), skipped=np.int32(skipped))
  row = EpochReport(config, module, fixed, None).measure_epoch(2, jax.device_put(state), 1.5, 3)
  assert row["learning_rate"] == pytest.approx(rate)
  assert (row["epoch"], row["train_seconds"], row["validation_dsc"]) == (2, 1.5, None)
  assert row["patches"] == 3 * config.train.batch_size


def test_a_loss_is_the_mean_of_its_parts_batches_by_what_predicts(config):
  """The averages, where they are kept; each part of the fold in its own column."""
  rng, module = np.random.default_rng(0), Line()
  config = with_keys(config, {"optimizer.ema_decay": 0.9})
  state = create_state(config, module)
  state = state.replace(params=jax.tree.map(lambda x: x + 2, state.params))
  fixed = {
    part: [
      NetworkInput(rng.normal(size=(1, 2, 2, 2, 1)), rng.integers(0, 2, (1, 2, 2, 2)))
      for _ in range(2)
    ]
    for part in PARTS
  }
  loss = jax.jit(lambda variables, batch: fixed_loss(config, module, variables, batch))
  written = EpochReport(config, module, fixed, None)
  row = written.measure_epoch(1, state, 0.0, 1)
  for part, name in (("training", "train"), ("validation", "validation"), ("test", "test")):
    own = [float(loss(state.ema, batch)) for batch in fixed[part]]
    assert row[f"{name}_seg_loss"] == pytest.approx(sum(own) / 2, rel=1e-5)
  state = state.replace(ema=jax.tree.map(lambda x: x * np.nan, state.ema))
  with pytest.raises(
    UserError, match=r"^the training loss is nan after the update of step 0, on patches without"
  ):
    written.measure_epoch(1, state, 0.0, 1)


@pytest.mark.parametrize(
  ("patches", "said"),
  [
    (36, "9.0 s, 4 patches a second, 40s left"),  # the third epoch of seven, a whole one
    (18, "9.0 s, 2 patches a second, 1m20s left"),  # the half that was left to this start
    (0, "9.0 s"),  # its validation alone
  ],
)
def test_the_time_that_is_left_is_counted_from_the_patches_of_this_start(
  config, monkeypatch, capsys, patches, said
):
  clock = iter((100.0, 110.0))
  monkeypatch.setattr(epoch_end, "time", SimpleNamespace(monotonic=lambda: next(clock)))
  config = with_keys(config, {"train.epochs": 7, "train.steps_per_epoch": 18})
  log = SimpleNamespace(write_epoch=lambda row: None)
  row = dict.fromkeys(("train_seg_loss", "validation_seg_loss", "test_seg_loss"), 0.5)
  row |= {"epoch": 3, "train_seconds": 9.0, "patches": patches, "validation_dsc": None}
  EpochReport(config, Line(), {}, log).write_row(row)
  assert capsys.readouterr().out.endswith(f"test 0.5000; {said}\n")


def test_the_gates_of_the_validation_patches_are_logged(config):
  """Of a network whose gates say how bright a voxel is: 0.5 in the organ and 0.25 elsewhere."""
  config = with_keys(config, {"data.spacing_mm": 20.0})  # so that nothing lies within 10 mm
  label = np.zeros((1, 4, 4, 4), np.uint8)
  label[:, :2] = 1
  image = np.where(label > 0, 1.0, 0.5).astype(np.float32)[..., None]
  fixed = {part: [NetworkInput(image * (part == "validation"), label)] for part in PARTS}
  module, found = Gated(num_classes=2), []
  log = SimpleNamespace(
    write_gates=lambda *said: found.append(said), write_epoch=lambda row: found.append("row")
  )
  report = EpochReport(config, module, fixed, log)
  report.write_row(report.measure_epoch(1, create_state(config, Line()), 1.0, 1))
  (epoch, gates), row = found
  assert (epoch, row) == (1, "row")
  for name, share in (("level1/0", 0.5), ("level2/0", 1.0)):  # one of two channels is 0
    assert gates[name]["organ"] == share
    assert gates[name]["elsewhere"] == share / 2
    assert np.isnan(gates[name]["shell"])


def test_a_validation_patch_is_shown_after_a_validation_alone(config):
  label = np.zeros((1, 4, 4, 4), np.uint8)
  label[:, :2] = 1
  fixed = {part: [NetworkInput(label[..., None].astype(np.float32), label)] for part in PARTS}
  shown = []
  log = SimpleNamespace(
    write_gates=lambda *_: None,
    write_epoch=lambda _: None,
    write_picture=lambda epoch, name, draw: shown.append((epoch, name, draw("title"))),
  )
  report = EpochReport(config, Gated(num_classes=2), fixed, log)
  row = report.measure_epoch(1, create_state(config, Line()), 1.0, 1)
  report.write_row(row)
  assert shown == []
  report.write_row(row, ValidationScore(0.5, 1, 1))
  ((epoch, name, png),) = shown
  assert (epoch, name) == (1, "validation patch")
  assert png.startswith(b"\x89PNG")
