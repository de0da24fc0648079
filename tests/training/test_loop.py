"""The loop on the tiny phantoms: it learns, logs, resumes to the same bits, and obeys signals."""

import itertools
import json
import os
import re
import resource
import shutil
import signal
import time
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.patches.batch import make_training_batch
from attn_unet_jax.patches.device_source import make_resident
from attn_unet_jax.runs.metrics_csv import COLUMNS, read_metrics
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.signals import Interrupted
from attn_unet_jax.training import integrity, loop
from attn_unet_jax.training.checkpoint import list_saved_steps, open_checkpoints
from attn_unet_jax.training.epoch_end import EpochReport, ValidationScore
from attn_unet_jax.training.loop import train_network
from attn_unet_jax.training.nonfinite import NonfiniteWatch
from attn_unet_jax.training.step import StepMetrics
from tests.configs import small_config, with_keys
from tests.conftest import assert_same
from tests.line import Line

pytestmark = pytest.mark.usefixtures("shared_steps")


@pytest.fixture(scope="module")
def setting(phantoms):
  config = small_config(
    **{
      "data.dir": str(phantoms),
      "augment.flip": (0.5, 0.5, 0.5),
      "augment.noise_sd": (0.0, 0.1),
      "train.epochs": 3,
    }
  )
  fold = open_fold(config.data)
  return config, Line(batch_norm=True), fold  # the loop does not care what it trains


def _train(setting, workdir, validate=lambda state: 0.5):
  config, module, fold = setting
  workdir.mkdir(exist_ok=True)
  with open_checkpoints(workdir / "checkpoints", config.train.keep) as store:
    return train_network(config, module, fold.load, _scoring(validate), store, workdir)


def _scoring(validate):
  """A validation whose mean is of one score; of none where `validate` returns None."""

  def score(state):
    dsc = validate(state)
    return ValidationScore(dsc, int(dsc is not None), 1)

  return score


@pytest.fixture(scope="module")
def undisturbed(setting, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("undisturbed")
  return _train(setting, workdir), workdir


def test_writes_a_line_per_epoch_and_learns(undisturbed):
  state, workdir = undisturbed
  rows = read_metrics(workdir / "metrics.csv")
  assert [row["epoch"] for row in rows] == ["1", "2", "3"]
  assert all(float(row[name]) >= 0 for row in rows for name in COLUMNS)
  assert float(rows[-1]["train_seg_loss"]) < float(rows[0]["train_seg_loss"])
  assert int(state.step) == 9


def test_a_finished_run_is_not_trained_again(setting, undisturbed):
  state, workdir = undisturbed
  before = (workdir / "metrics.csv").read_text()
  assert_same(_train(setting, workdir), state)
  assert (workdir / "metrics.csv").read_text() == before


def test_a_run_that_is_lengthened_ends_as_one_that_was_as_long_from_the_start(
  setting, undisturbed, tmp_path
):
  config, *rest = setting
  shorter = with_keys(config, {"train.epochs": 2})
  assert int(_train((shorter, *rest), tmp_path).step) == 6
  assert_same(_train(setting, tmp_path), undisturbed[0])
  assert [row["epoch"] for row in read_metrics(tmp_path / "metrics.csv")] == ["1", "2", "3"]


def test_epochs_are_saved_and_validated_as_often_as_asked_and_the_last_always(setting, tmp_path):
  config, *rest = setting
  config = with_keys(
    config, {"train.epochs": 4, "train.keep": 4, "train.save_every": 2, "train.validate_every": 3}
  )
  validated = []
  _train((config, *rest), tmp_path, lambda state: validated.append(int(state.step)) or 0.5)
  assert validated == [9, 12]
  assert list_saved_steps(tmp_path / "checkpoints") == [6, 9, 12]
  rows = read_metrics(tmp_path / "metrics.csv")
  assert [row["validation_dsc"] for row in rows] == ["", "", "0.5", "0.5"]


def test_a_validation_without_a_score_chooses_no_checkpoint(setting, tmp_path, capsys):
  """None of its cases has a class. A DSC of 1 for such cases would win over any other."""
  config, *rest = setting
  config = with_keys(config, {"train.epochs": 2, "train.keep": 1, "train.validate_every": 1})
  _train((config, *rest), tmp_path, lambda state: 0.1 if int(state.step) == 3 else None)
  first, second = capsys.readouterr().out.splitlines()[-2:]
  assert "validation DSC 0.100 (n 1 of 1)" in first
  assert "validation DSC undefined (n 0 of 1: " in second
  rows = read_metrics(tmp_path / "metrics.csv")
  assert [row["validation_dsc"] for row in rows] == ["0.1", ""]
  assert list_saved_steps(tmp_path / "checkpoints") == [3, 6]


@pytest.mark.parametrize(
  "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_the_next_start_gives_the_same_bits(
  setting, undisturbed, tmp_path, number
):
  calls = []

  def interrupting(state):
    calls.append(int(state.step))
    if len(calls) == 2:
      os.kill(os.getpid(), number)
    return 0.5

  with pytest.raises(Interrupted) as stop:
    _train(setting, tmp_path, interrupting)
  assert stop.value.status == 128 + number
  assert calls == [3, 6]
  assert_same(_train(setting, tmp_path), undisturbed[0])
  assert [row["epoch"] for row in read_metrics(tmp_path / "metrics.csv")] == ["1", "2", "3"]


@pytest.mark.slow
def test_a_signal_in_validation_breaks_in_and_the_epoch_is_validated_again(
  setting, undisturbed, tmp_path
):
  finished = []

  def interrupted(state):
    if int(state.step) == 6:
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(1)
    finished.append(int(state.step))
    return 0.5

  with pytest.raises(Interrupted):
    _train(setting, tmp_path, interrupted)
  assert finished == [3]  # the second validation was broken off
  assert [row["epoch"] for row in read_metrics(tmp_path / "metrics.csv")] == ["1"]
  validated = []
  assert_same(
    _train(setting, tmp_path, lambda state: validated.append(int(state.step)) or 0.9),
    undisturbed[0],
  )
  assert validated == [6, 9]
  rows = read_metrics(tmp_path / "metrics.csv")
  assert [row["epoch"] for row in rows] == ["1", "2", "3"]
  assert [row["validation_dsc"] for row in rows] == ["0.5", "0.9", "0.9"]
  losses = [row["train_seg_loss"] for row in rows]
  assert losses == [r["train_seg_loss"] for r in read_metrics(undisturbed[1] / "metrics.csv")]
  with open_checkpoints(tmp_path / "checkpoints", 2) as store:
    assert store.best_step in (6, 9)


def _copied(workdir, to):
  """What a kill at this moment would leave."""
  to.mkdir()
  shutil.copytree(workdir / "checkpoints", to / "checkpoints")
  shutil.copy(workdir / "metrics.csv", to)


def test_an_epoch_is_saved_before_it_is_validated(setting, undisturbed, tmp_path):
  """A kill in a validation loses no step, and that validation is done again."""
  killed = tmp_path / "killed"

  def slow(state):
    deadline = time.monotonic() + 60
    while list_saved_steps(tmp_path / "checkpoints")[-1:] != [int(state.step)]:
      assert time.monotonic() < deadline, "not saved while it is validated"
      time.sleep(0.01)
    if int(state.step) == 6:
      _copied(tmp_path, killed)
    return 0.1 * int(state.step)

  _train(setting, tmp_path, slow)
  validated = []
  state = _train(setting, killed, lambda state: validated.append(int(state.step)) or 0.7)
  assert validated == [6, 9]
  assert_same(state, undisturbed[0])
  assert [row["validation_dsc"] for row in read_metrics(killed / "metrics.csv")] == [
    *("0.3", "0.7", "0.7")
  ]
  with open_checkpoints(tmp_path / "checkpoints", 2) as store:
    assert store.best_step == 9


@pytest.mark.slow
def test_a_kill_between_the_score_and_the_log_loses_neither(
  setting, undisturbed, tmp_path, monkeypatch
):
  killed, real = tmp_path / "killed", loop.EpochReport.write_row

  def write(report, row, score):
    if row["epoch"] == 2:
      _copied(tmp_path, killed)
    real(report, row, score)

  monkeypatch.setattr(loop.EpochReport, "write_row", write)
  _train(setting, tmp_path, lambda state: 0.9 if int(state.step) == 6 else 0.1)
  monkeypatch.undo()
  with open_checkpoints(killed / "checkpoints", 2) as store:
    assert (store.latest_step, store.best_step) == (6, 6)
  assert [row["epoch"] for row in read_metrics(killed / "metrics.csv")] == ["1"]
  assert_same(_train(setting, killed), undisturbed[0])
  assert [row["epoch"] for row in read_metrics(killed / "metrics.csv")] == ["1", "2", "3"]


def test_a_signal_that_comes_after_the_last_look_ends_the_run(
  setting, undisturbed, tmp_path, monkeypatch
):
  """Before the test cases are segmented, which may take long."""
  real, before = loop._save_and_stop, signal.getsignal(signal.SIGTERM)

  def leave(run, number, state):
    real(run, number, state)
    if int(state.step) == 9:
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(loop, "_save_and_stop", leave)
  with pytest.raises(Interrupted) as stop:
    _train(setting, tmp_path)
  assert stop.value.number == signal.SIGTERM
  assert signal.getsignal(signal.SIGTERM) == before
  assert list_saved_steps(tmp_path / "checkpoints")[-1] == 9
  assert_same(_train(setting, tmp_path), undisturbed[0])


def _signal_at(monkeypatch, number):
  """SIGTERM in the step from state `number`."""
  real = loop.compile_step

  def compile_and_signal(*arguments, **keywords):
    step = real(*arguments, **keywords)

    def signalling(state, data):
      if int(state.step) == number:
        os.kill(os.getpid(), signal.SIGTERM)
      return step(state, data)

    return signalling

  monkeypatch.setattr(loop, "compile_step", compile_and_signal)


def _signal_in_the_losses(monkeypatch):
  real = EpochReport._measure_losses

  def losses(report, state):
    if int(state.step) == 6:
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(1)
      raise AssertionError("they were waited for")
    return real(report, state)

  monkeypatch.setattr(EpochReport, "_measure_losses", losses)


@pytest.mark.parametrize(
  "signalled",
  [lambda patch: _signal_at(patch, 5), pytest.param(_signal_in_the_losses, marks=pytest.mark.slow)],
  ids=["step", "losses"],
)
def test_a_signal_before_a_validation_leaves_it_to_the_next_start(
  setting, undisturbed, tmp_path, monkeypatch, signalled
):
  """One that comes in the epoch's last step, or while losses are measured."""
  validated = []

  def validate(state):
    validated.append(int(state.step))
    return 0.5

  with monkeypatch.context() as patch:
    signalled(patch)
    with pytest.raises(Interrupted):
      _train(setting, tmp_path, validate)
  assert (validated, list_saved_steps(tmp_path / "checkpoints")[-1]) == ([3], 6)
  assert [row["epoch"] for row in read_metrics(tmp_path / "metrics.csv")] == ["1"]
  assert_same(_train(setting, tmp_path, validate), undisturbed[0])
  assert validated == [3, 6, 9]
  assert [row["epoch"] for row in read_metrics(tmp_path / "metrics.csv")] == ["1", "2", "3"]


def test_a_stop_within_an_epoch_resumes_to_the_same_bits(
  setting, undisturbed, tmp_path, monkeypatch
):
  """The signal arrives in the first step of epoch 1, so the state is saved after step 1.

  It is on disk when that is said, though the disk is slow and a second signal comes.
  """
  write, told = integrity.write_seal, []

  def slowly(*arguments):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.3)
    write(*arguments)

  def say(line):
    told.append((line, list_saved_steps(tmp_path / "checkpoints")))

  with monkeypatch.context() as patch:
    _signal_at(patch, 0)
    patch.setattr(integrity, "write_seal", slowly)
    patch.setattr(loop.console, "print_line", say)
    with pytest.raises(Interrupted) as stop:
      _train(setting, tmp_path)
  assert stop.value.status == 143
  assert told[-1] == ("stopped by signal 15; saved after step 1, start again to go on", [1])
  assert_same(_train(setting, tmp_path), undisturbed[0])


@pytest.mark.slow
def test_a_run_whose_log_was_moved_away_within_an_epoch_goes_on_without_it(
  setting, undisturbed, tmp_path, monkeypatch
):
  """What the first epoch reached is gone, and is not measured on a later state."""
  with monkeypatch.context() as patch:
    _signal_at(patch, 4)
    with pytest.raises(Interrupted):
      _train(setting, tmp_path)
  (tmp_path / "metrics.csv").unlink()
  assert_same(_train(setting, tmp_path), undisturbed[0])
  assert [row["epoch"] for row in read_metrics(tmp_path / "metrics.csv")] == ["2", "3"]


@pytest.mark.slow
def test_a_signal_breaks_off_the_wait_for_a_feed(setting, undisturbed, tmp_path, monkeypatch):
  """Such as for scans that a streaming source still prepares."""
  opened = loop.open_inputs

  def late(feeds):
    yield from itertools.islice(feeds, 4)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(1)
    raise AssertionError("it was waited for")

  @contextmanager
  def fed(source, steps):
    with source.feeds(steps) as feeds:
      yield late(feeds)

  def open_late(*arguments):
    inputs = opened(*arguments)
    return inputs._replace(source=SimpleNamespace(feeds=partial(fed, inputs.source)))

  with monkeypatch.context() as patch:
    patch.setattr(loop, "open_inputs", open_late)
    with pytest.raises(Interrupted):
      _train(setting, tmp_path)
  assert list_saved_steps(tmp_path / "checkpoints")[-1] == 4
  assert_same(_train(setting, tmp_path), undisturbed[0])


def _breaking(setting, skip):
  """The config, its second step broken and so many left out, and the fold of a setting."""
  config, _, fold = setting
  config = with_keys(config, {"optimizer.learning_rate": 1e38, "train.skip_nonfinite": skip})
  return config, fold


@pytest.mark.parametrize("skip", [pytest.param(1, marks=pytest.mark.slow), 0])
def test_a_broken_step_is_named_though_a_signal_comes_in_it(
  setting, tmp_path, monkeypatch, capsys, skip
):
  """The next start would know of its number only; the state before it is saved first."""
  config, fold = _breaking(setting, skip)
  _signal_at(monkeypatch, 1)
  with pytest.raises(Interrupted if skip else UserError) as stop:
    _train((config, Line(), fold), tmp_path)
  told = capsys.readouterr().out if skip else str(stop.value)
  assert "step 2: the loss is inf (patches: " in told
  assert list_saved_steps(tmp_path / "checkpoints")[-1] == 1 + skip
  if skip:  # as many as are allowed, of all starts
    with pytest.raises(UserError, match=r"^step 3: the loss is inf"):
      _train((config, Line(), fold), tmp_path)
    assert "left out" not in capsys.readouterr().out


@pytest.mark.parametrize("skip", [2, pytest.param(0, marks=pytest.mark.slow)])
def test_a_broken_step_is_told_though_a_signal_comes_while_its_patches_are_looked_up(
  setting, tmp_path, monkeypatch, capsys, skip
):
  """Their scans are read again, which may take long: it is broken off."""
  config, fold = _breaking(setting, skip)
  opened = loop.open_inputs

  def places(step):
    if step == 2:
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(1)
      raise AssertionError("it was waited for")
    return [("scan", (0, 0, 0))]  # of step 3, which was under way

  monkeypatch.setattr(
    loop, "open_inputs", lambda *rest: opened(*rest)._replace(locate_patches=places)
  )
  with pytest.raises(Interrupted if skip else UserError) as stop:
    _train((config, Line(), fold), tmp_path)
  told = capsys.readouterr().out if skip else str(stop.value)
  assert "step 2: the loss is inf (patches: not known, stopped by signal 15)" in told
  assert list_saved_steps(tmp_path / "checkpoints") == ([3] if skip else [])


def test_a_broken_step_is_told_though_its_scans_can_be_read_no_more(config, tmp_path):
  def places(step):
    raise UserError("scan.nii.gz: no such file; check the path")

  watch = NonfiniteWatch(config, places, 0, tmp_path / "nonfinite")
  watch.note_step(3, StepMetrics(jnp.float32(jnp.nan), jnp.float32(1)), None)
  told = r"^step 3: the loss is nan \(patches: not known, scan\.nii\.gz: no such file; check"
  with pytest.raises(UserError, match=told):
    watch.check_pending({"kernel": np.zeros(3)})


def test_a_loss_that_is_not_finite_stops_the_run(setting, tmp_path, capsys):
  """After the first update at such a rate: step 2 is left out, as allowed, and step 3 is too much.

  What is said of the patches is what a batch of that step is cut from.
  """
  config, _, fold = setting
  config = with_keys(config, {"optimizer.learning_rate": 1e38, "train.skip_nonfinite": 1})
  told = r"^step 3: the loss is inf .*skip_nonfinite=4 to go on.*learning_rate \(now 1e\+38\)"
  with pytest.raises(UserError, match=told):
    _train((config, Line(), fold), tmp_path)
  assert "step 2: the loss is inf (patches: " in capsys.readouterr().out
  told = json.loads((tmp_path / "nonfinite" / "batch.json").read_text())
  assert (told["step"], told["loss"]) == (3, "inf")
  cases = {case.id: case for case in fold.load("training")}
  cut = jax.jit(lambda data: make_training_batch(config, data, 2))
  batch = cut(make_resident(list(cases.values()), (16, 16, 16)))
  for patch, label in zip(told["patches"], batch.label, strict=True):
    where = tuple(slice(c, c + 16) for c in patch["corner"])
    assert np.asarray(label).sum() == cases[patch["case"]].label[where].sum()  # flipped, perhaps
  with ocp.StandardCheckpointer() as checkpointer:
    state = checkpointer.restore((tmp_path / "nonfinite" / "state").absolute())
  assert (int(state["step"]), int(state["skipped"])) == (2, 1)
  assert abs(state["params"]["kernel"][0]) > 1e30
  assert not list((tmp_path / "checkpoints").iterdir())


@pytest.mark.slow
def test_a_state_whose_losses_are_not_finite_takes_no_checkpoints_place(setting, tmp_path):
  """The last update of an epoch is too large, and only the best and the newest are kept."""
  config, module, fold = setting
  config = with_keys(
    config,
    {
      "optimizer.schedule": "step",
      "optimizer.decay_epochs": 1,
      "optimizer.decay_factor": 1e38,
      "train.steps_per_epoch": 1,
      "train.keep": 1,
      "train.validate_every": 3,
    },
  )
  told = "loss is (inf|nan) after the update of step 2, .*; earlier checkpoints are as they were. "
  for _ in range(2):  # also where it is started again
    with pytest.raises(UserError, match=told):
      _train((config, module, fold), tmp_path)
    assert list_saved_steps(tmp_path / "checkpoints") == [1]


def test_a_loss_that_is_not_finite_is_told_though_the_disk_is_full(config, tmp_path):
  def places(step):
    return [("scan", (step, 0, 0))]

  watch = NonfiniteWatch(config, places, 0, tmp_path / "nonfinite")
  watch.note_step(3, StepMetrics(jnp.float32(jnp.nan), jnp.float32(1)), None)
  state = {"kernel": np.random.default_rng(0).normal(size=5000)}
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
  try:
    with pytest.raises(UserError) as told:
      watch.check_pending(state)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  said = r"step 3: the loss is nan \(patches: scan at voxel \(3, 0, 0\)\); the state before it "
  said += rf"could not be written to {tmp_path}/nonfinite \(File too large\)\. Start again with "
  assert re.match(said, str(told.value))
