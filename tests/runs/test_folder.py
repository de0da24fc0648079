import contextlib
import json
import os
import signal
import sys
import time

import pytest

from attn_unet_jax.config.stored import load_config, to_json
from attn_unet_jax.runs import folder as run_folder
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import write_text
from attn_unet_jax.runtime.signals import Interrupted, StopRequest, defer_signals
from attn_unet_jax.workflows.run_folder import open_run_folder
from tests.configs import with_keys


def test_a_run_that_is_made_just_before_the_lock_is_taken_is_not_overwritten(
  config, tmp_path, monkeypatch
):
  """By a process that began at the same time, trained, and ended."""
  real = run_folder.lock_folder

  def late(workdir):
    if not (workdir / "config.json").exists():
      write_text(workdir / "config.json", to_json(config))
      (workdir / "checkpoints" / "3").mkdir(parents=True)
    real(workdir)

  monkeypatch.setattr("attn_unet_jax.workflows.run_folder.lock_folder", late)
  other = with_keys(config, {"seed": 7})
  with pytest.raises(UserError, match="seed: 0 there, 7 now"):
    open_run_folder(tmp_path, other)
  assert load_config(tmp_path / "config.json") == config


def test_the_record_says_how_it_ended(tmp_path):
  with run_folder.record_run(tmp_path):
    assert json.loads((tmp_path / "run.json").read_text())["exit"] == "running"
  stored = json.loads((tmp_path / "run.json").read_text())
  assert stored["exit"] == "done"
  assert stored["wall_seconds"] >= 0
  assert stored["peak_memory_bytes"]["host"] > 2**20
  assert "jax" in stored["versions"]
  with pytest.raises(ZeroDivisionError), run_folder.record_run(tmp_path):
    raise ZeroDivisionError("why")
  assert json.loads((tmp_path / "run.json").read_text())["exit"] == "ZeroDivisionError: why"


def test_what_a_run_started_from_stays_on_record(config, tmp_path):
  """Where it goes on; a run that is begun anew forgets it."""
  open_run_folder(tmp_path, config)

  def recorded(**said):
    with run_folder.record_run(tmp_path, **said):
      pass
    return json.loads((tmp_path / "run.json").read_text()).get("init")

  assert recorded(init={"workdir": "b"}) == {"workdir": "b"}
  assert recorded() is None
  assert recorded(init={"workdir": "b"}) == {"workdir": "b"}
  (tmp_path / "checkpoints" / "0").mkdir(parents=True)
  assert recorded() == {"workdir": "b"}


def test_the_time_of_all_starts_is_on_record(tmp_path, monkeypatch):
  """A start that was killed took an unknown time; what was known before stays."""
  clock = iter([0.0, 10.0, 100.0, 107.5, 1000.0, 1001.0])
  monkeypatch.setattr(run_folder.time, "monotonic", lambda: next(clock))
  with run_folder.record_run(tmp_path):
    pass
  (tmp_path / "checkpoints" / "0").mkdir(parents=True)
  with run_folder.record_run(tmp_path):
    pass
  with run_folder.record_run(tmp_path):
    stored = json.loads((tmp_path / "run.json").read_text())  # what a kill would leave
  assert (stored["exit"], stored["total_wall_seconds"]) == ("running", 17.5)


@pytest.mark.parametrize(
  "content",
  [
    *("[]", "{", '{"total_wall_seconds": "long", "init": {}}', '{"total_wall_seconds": NaN}'),
    '{"total_wall_seconds": 1' + 400 * "0" + "}",
  ],
)
def test_a_damaged_record_is_set_aside_and_costs_no_run(tmp_path, capsys, content):
  (tmp_path / "checkpoints" / "0").mkdir(parents=True)
  (tmp_path / "run.json").write_text(content)
  with run_folder.record_run(tmp_path):
    pass
  stored = json.loads((tmp_path / "run.json").read_text())
  assert (stored["exit"], stored["total_wall_seconds"]) == ("done", stored["wall_seconds"])
  assert (tmp_path / "run.json.damaged").read_text() == content
  said = capsys.readouterr().out
  assert said.startswith(f"{tmp_path}/run.json: ")
  assert said.endswith("; left as run.json.damaged, a new record begins\n")


def test_a_record_that_may_not_be_read_is_no_damaged_one(tmp_path, unreadable):
  (tmp_path / "checkpoints" / "0").mkdir(parents=True)
  (tmp_path / "run.json").write_text("{}")
  unreadable(tmp_path / "run.json")
  with pytest.raises(PermissionError), run_folder.record_run(tmp_path):
    pass
  assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "run.json"]


@pytest.mark.parametrize("replaced", [False, True])
def test_a_run_whose_folder_vanishes_is_not_done(config, tmp_path, replaced):
  """Also where something, such as the masks of a test, has made the folder again."""
  workdir = tmp_path / "run"
  open_run_folder(workdir, config)
  record = run_folder.record_run(workdir)
  record.__enter__()
  workdir.rename(tmp_path / "elsewhere")
  if replaced:
    (workdir / "predictions").mkdir(parents=True)
  with pytest.raises(UserError, match=f"{workdir}: removed or replaced while the run was at work"):
    record.__exit__(None, None, None)
  assert not (workdir / "run.json").exists()


def test_accepted_changes_of_the_data_stay_on_record(tmp_path):
  (tmp_path / "checkpoints" / "0").mkdir(parents=True)
  for changes in ("changed: label of a", "", "gone: b"):
    with run_folder.record_run(tmp_path, data_changes=changes):
      pass
  accepted = json.loads((tmp_path / "run.json").read_text())["accepted_data_changes"]
  assert [start["changes"] for start in accepted] == ["changed: label of a", "gone: b"]


def test_what_was_accepted_stands_in_the_record_and_stays(tmp_path):
  accepted = {"reasons": ["hounsfield"], "findings": []}
  with run_folder.record_run(tmp_path, accepted=accepted):
    accepted["findings"].append("accepted (hounsfield): a.nii: odd")  # when the scan is read
  (tmp_path / "checkpoints" / "1").mkdir(parents=True)
  with run_folder.record_run(tmp_path, accepted={"reasons": ["geometry"], "findings": []}):
    pass
  record = json.loads((tmp_path / "run.json").read_text())
  assert record["accepted"] == {
    "reasons": ["hounsfield", "geometry"],
    "findings": ["accepted (hounsfield): a.nii: odd"],
  }


def test_a_run_that_accepts_nothing_says_nothing_of_it(tmp_path):
  with run_folder.record_run(tmp_path, accepted={"reasons": [], "findings": []}):
    pass
  assert "accepted" not in json.loads((tmp_path / "run.json").read_text())


@pytest.mark.parametrize(
  ("content", "begun"),
  [(None, False), ('{"data": {"fold": 0}}', False), ('{"data": {"fold": "all"}}', True)]
  + [("{", True), ("[]", True), ('{"data": 3}', True)],
)
def test_folds_are_progress_of_a_run_of_all_folds_alone(tmp_path, content, begun):
  """Or of one whose config is damaged, so that it may be one."""
  if content:
    (tmp_path / "config.json").write_text(content)
  assert not run_folder.has_progress(tmp_path)
  (tmp_path / "fold_0" / "checkpoints" / "3").mkdir(parents=True)
  assert run_folder.has_progress(tmp_path) == begun


@pytest.mark.parametrize("raised", [Interrupted(signal.SIGTERM), None])
def test_a_signal_while_the_end_is_recorded_breaks_nothing_off(tmp_path, monkeypatch, raised):
  """An impatient person sends a second signal while the first is still being obeyed."""
  write = run_folder.write_text

  def write_interrupted(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    write(*arguments)

  def raise_interrupted(number, _):
    raise Interrupted(number)

  def record_interrupted():
    with run_folder.record_run(tmp_path):
      monkeypatch.setattr(run_folder, "write_text", write_interrupted)
      if raised:
        raise raised

  before = signal.signal(signal.SIGTERM, raise_interrupted)
  try:
    with pytest.raises(Interrupted):
      record_interrupted()
  finally:
    signal.signal(signal.SIGTERM, before)
  ended = json.loads((tmp_path / "run.json").read_text())["exit"]
  assert ended == (f"Interrupted: {raised}" if raised else "done")


@pytest.mark.parametrize("deferred", [False, True], ids=["raised where it is", "by the loop"])
def test_signals_at_every_line_after_the_first_leave_the_record_whole(tmp_path, deferred):
  """The end of a run is on the way through several contexts, some of the standard library."""
  lines = []

  def send_signal(frame, event, _):
    if event == "line":
      lines.append(frame.f_lineno)
      os.kill(os.getpid(), signal.SIGINT)
    return send_signal

  def stop_run():
    stop = StopRequest()
    try:
      with defer_signals(stop) if deferred else contextlib.nullcontext():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.01)
      stop.raise_if_stopped()
    finally:
      sys._getframe().f_trace = sys._getframe(1).f_trace = send_signal
      sys.settrace(send_signal)

  def record_stopped_run():
    with run_folder.record_run(tmp_path):
      stop_run()

  handler = signal.getsignal(signal.SIGINT)
  try:
    # Python's own error if the signal arrives after the last line of the run.
    with pytest.raises((Interrupted, KeyboardInterrupt)):
      record_stopped_run()
  finally:
    sys.settrace(None)
  assert signal.getsignal(signal.SIGINT) is handler
  ended = json.loads((tmp_path / "run.json").read_text())["exit"]
  assert ended == "Interrupted: stopped by signal 2"
  assert len(lines) > 50
