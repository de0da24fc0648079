"""A run that is killed at random moments, or whose disk is full, ends with the bits it would have.

The moments come from a seed, in epochs and fractions of a second: in the very first step, and then
in turn within saves and among steps. After the last kill the newest checkpoint is damaged, so the
one before it must do.
"""

import random
import re
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from attn_unet_jax.config.stored import load_config
from attn_unet_jax.runs.metrics_csv import read_metrics
from attn_unet_jax.training.checkpoint import list_saved_steps, restore_checkpoint
from attn_unet_jax.training.state import abstract_state
from attn_unet_jax.workflows.network import build_run_network
from tests.configs import SMALLEST, small_config, with_keys
from tests.conftest import ROOT, flags_of, flip_a_bit, host_devices
from tests.line import Line

LINE = Line(batch_norm=True)
# Its channels are drawn in every step, so a random stream goes on too.
DROPPING = {**SMALLEST, "model.feature_scale": 1.0, "model.dilation_rates": ((1, 1),)}
DROPPING["model.channels_kept"] = 0.5
SOURCES = {"resident": {}, "streaming": {"data.source": "streaming"}}  # name -> keys of the config


def _config(data_dir, epochs, source):
  keys = {
    "data.dir": str(data_dir),
    "augment.flip": (0.5, 0.5, 0.5),
    "augment.noise_sd": (0.0, 0.1),
    "optimizer.ema_decay": 0.9,
    "train.epochs": epochs,
    "train.steps_per_epoch": 5,
    "train.validate_every": 4,
  }
  return small_config(**keys, **SOURCES[source])


def _start(config, workdir, *flags):
  command = [sys.executable, "-m", "tests.tiny_run", "--config=tests/small.py"]
  return subprocess.Popen(
    [*command, f"--workdir={workdir}", *flags_of(config), *flags],
    cwd=ROOT,
    env=host_devices(max(1, config.parallel.data)),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def _finish(config, workdir, *flags):
  process = _start(config, workdir, *flags)
  output, errors = process.communicate(timeout=600)
  assert (process.returncode, errors) == (0, ""), output
  return output


@pytest.fixture(scope="module")
def undisturbed(phantoms, tmp_path_factory):
  """`(source, epochs) -> workdir`, each trained once."""
  done: dict[tuple[str, int], Path] = {}

  def workdir(source, epochs):
    if (source, epochs) not in done:
      folder = done[source, epochs] = tmp_path_factory.mktemp(source)
      _finish(_config(phantoms, epochs, source), folder)
    return done[source, epochs]

  return workdir


def _last_states(config, *workdirs, module):
  """The arrays of the last state of each run: optimiser, statistics and averages too."""
  like, steps = abstract_state(config, module), 5 * config.train.epochs
  assert all(list_saved_steps(workdir / "checkpoints")[-1] == steps for workdir in workdirs)
  folders = [workdir / "checkpoints" / str(steps) for workdir in workdirs]
  return [jax.tree.leaves(restore_checkpoint(folder, like)) for folder in folders]


def _assert_the_same_end(config, a, b, module=LINE):
  for x, y in zip(*_last_states(config, a, b, module=module), strict=True):
    np.testing.assert_array_equal(x, y)
  tables = [read_metrics(workdir / "metrics.csv") for workdir in (a, b)]
  measured = [name for name in tables[0][0] if not name.endswith("seconds")]
  for name in measured:
    assert [row[name] for row in tables[0]] == [row[name] for row in tables[1]], name


def _wait(process, holds):
  deadline = time.monotonic() + 570
  while not holds():
    assert process.poll() is None, process.communicate()
    assert time.monotonic() < deadline
    time.sleep(0.002)


def _kill(config, workdir, epoch, delay=0.0, *flags, in_save=False):
  """Kills a run some time after the checkpoint of an epoch, 0 the start; where that fell.

  That is in a 'save', among the 'steps' of an epoch, or 'between' those of two.
  """
  folder, begun = workdir / "checkpoints", workdir / "begun"
  begun.unlink(missing_ok=True)
  process = _start(config, workdir, f"--slow_steps={begun}", *flags)

  def saving():
    return bool(list(folder.glob("*-tmp")))

  def last():
    """The step that began last; 0 as long as there is none."""
    return int(begun.read_text() or 0) if begun.exists() else 0

  _wait(process, lambda: not epoch or list_saved_steps(folder)[-1:] >= [5 * epoch])
  _wait(process, saving if in_save else lambda: last() % 5 in (1, 2, 3) and not saving())
  time.sleep(delay)
  process.kill()
  process.communicate()
  assert process.returncode == -9
  if saving():
    return "save"
  return "steps" if last() % 5 else "between"


@pytest.mark.soak
@pytest.mark.parametrize(("kills", "epochs"), [(5, 24), (20, 63)])
@pytest.mark.parametrize("source", SOURCES)
def test_killed_at_random_moments_and_started_again(
  phantoms, undisturbed, tmp_path, source, kills, epochs
):
  config, moments, fell = _config(phantoms, epochs, source), random.Random(1), []
  for number in range(kills):
    in_save = number % 2 == 1
    delay = 0 if number < 2 else moments.uniform(0, 0.02 if in_save else 0.1)
    fell.append(_kill(config, tmp_path, number * epochs // (kills + 1), delay, in_save=in_save))
    assert number or not list_saved_steps(tmp_path / "checkpoints")
  assert fell[:2] == ["steps", "save"]
  assert "steps" in fell[2:], fell
  newest = tmp_path / "checkpoints" / str(list_saved_steps(tmp_path / "checkpoints")[-1])
  flip_a_bit(next((newest / "default" / "d").iterdir()))
  output = _finish(config, tmp_path)
  assert f"{newest} is damaged (default/d/" in output
  assert "epoch 1/" not in output  # it went on from the one before
  _assert_the_same_end(config, undisturbed(source, epochs), tmp_path)


@pytest.mark.parametrize(
  ("source", "devices", "network"),
  [
    pytest.param("resident", 1, {}, marks=pytest.mark.slow),  # the line, which drops voxels
    pytest.param("resident", 1, DROPPING, marks=pytest.mark.soak),
    pytest.param("resident", 1, {"model.gates": 1}, marks=pytest.mark.soak),
    pytest.param("streaming", 4, {"model.gates": 1}, marks=pytest.mark.soak),
  ],
)
def test_a_killed_network_ends_with_the_same_bits(phantoms, tmp_path, source, devices, network):
  """Killed after its second epoch; a batch's sums over devices repeat their bits too."""
  config, killed, whole = _config(phantoms, 8, source), tmp_path / "killed", tmp_path / "whole"
  config = with_keys(config, {**network, "parallel.data": devices, "train.batch_size": 4})
  flag = "--network" if network else "--kept=0.5"
  _kill(config, killed, 2, 0.0, flag)
  assert 10 <= list_saved_steps(killed / "checkpoints")[-1] < 40
  for workdir in (killed, whole):
    output = _finish(config, workdir, flag)
    assert ("epoch 1/" in output) == (workdir == whole)
  module = build_run_network(config, 2) if network else LINE
  _assert_the_same_end(config, whole, killed, module)


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_from_the_other_source(phantoms, undisturbed, tmp_path):
  """Which cuts the same patches, but in another program: to rounding."""
  _kill(_config(phantoms, 12, "resident"), tmp_path, 3)
  config = _config(phantoms, 12, "streaming")
  output = _finish(config, tmp_path)
  assert f"{tmp_path} resumes with data.source='streaming', was 'auto'" in output
  assert "epoch 2/" not in output
  assert load_config(tmp_path / "config.json") == config
  folders = undisturbed("resident", 12), tmp_path
  for x, y in zip(*_last_states(config, *folders, module=LINE), strict=True):
    np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_full_disk_ends_with_one_line_and_the_run_goes_on_when_there_is_room(
  phantoms, undisturbed, tmp_path
):
  config = _config(phantoms, 12, "resident")
  process = _start(config, tmp_path, "--full_at=40")
  output, errors = process.communicate(timeout=600)
  assert process.returncode == 2, output + errors
  folder = tmp_path / "checkpoints"
  told = r"error: (.*): step (35|40) could not be saved \(File too large\); earlier .*\n"
  said = re.fullmatch(told, errors)
  assert said, errors
  where, step = said.groups()  # 35 may still be on its way to the disk
  assert Path(where) == folder
  assert list_saved_steps(folder) == [
    20,
    int(step) - 10,
    int(step) - 5,
  ]  # the best and the latest two
  _finish(config, tmp_path)
  _assert_the_same_end(config, undisturbed("resident", 12), tmp_path)
