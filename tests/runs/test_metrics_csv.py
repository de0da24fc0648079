import os
import struct
import subprocess
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from attn_unet_jax.runs import metrics_csv
from attn_unet_jax.runs.metrics_csv import COLUMNS, EpochLog, read_metrics
from attn_unet_jax.runtime.errors import UserError
from tests.conftest import ROOT


def _row(epoch):
  return {**dict.fromkeys(COLUMNS, 0.25), "epoch": epoch, "validation_dsc": None}


def _read_events(path):
  data, at = path.read_bytes(), 0
  while at < len(data):  # TFRecord: length, checksum, event, checksum
    (length,) = struct.unpack("<Q", data[at : at + 8])
    yield Event.FromString(data[at + 12 : at + 12 + length])
    at += 12 + length + 4


def test_a_run_that_goes_on_rewrites_what_its_checkpoint_does_not_hold(tmp_path):
  log = EpochLog(tmp_path, 0)
  for epoch in (1, 2, 3):
    log.write_epoch(_row(epoch))
  log.close()
  log = EpochLog(tmp_path, 2)
  log.write_epoch({**_row(3), "train_seg_loss": 0.12345678})
  log.close()
  rows = read_metrics(tmp_path / "metrics.csv")
  assert [row["epoch"] for row in rows] == ["1", "2", "3"]
  assert rows[2]["train_seg_loss"] == "0.123457"
  assert rows[2]["validation_dsc"] == ""
  assert list(rows[0]) == list(COLUMNS)
  assert list(tmp_path.glob("events.*"))


def test_no_file_has_no_rows(tmp_path):
  assert read_metrics(tmp_path / "metrics.csv") == []


def test_a_torn_last_line_is_no_row(tmp_path):
  """A kill or a full disk may leave half of it: `12,0.3` must not pass for epoch 1."""
  log = EpochLog(tmp_path, 0)
  for epoch in (11, 12):
    log.write_epoch(_row(epoch))
  log.close()
  path = tmp_path / "metrics.csv"
  whole = path.read_text()
  torn = whole[: whole.rindex("12,") + 1]
  path.write_text(torn)
  assert [row["epoch"] for row in read_metrics(path)] == ["11"]
  EpochLog(tmp_path, 11).close()
  assert path.read_text() == torn[:-1]


@pytest.mark.parametrize(
  ("old", "new", "line"),
  [
    (",", ";", 1),
    ("epoch", "\ufeffepoch", 1),
    ("\n12,", "\n12.0,", 3),
    ("\n12,", "\n,", 3),
    ("\n12,", "\n\n12,", 3),
    ("\n12,", "\n12,0,", 3),
    ("\n12,", "\n" + 5000 * "1" + ",", 3),
    ("\n12,", "\n" + 2**18 * "\0", 3),  # blocks that a crash left empty
  ],
)
def test_a_log_that_was_edited_is_refused_by_line(tmp_path, old, new, line):
  log, path = EpochLog(tmp_path, 0), tmp_path / "metrics.csv"
  for epoch in (11, 12):
    log.write_epoch(_row(epoch))
  log.close()
  path.write_text(edited := path.read_text().replace(old, new))
  with pytest.raises(UserError, match=rf"metrics\.csv: line {line}, .*; put it right, or move"):
    EpochLog(tmp_path, 12)
  assert path.read_text() == edited


def test_tensorboard_has_the_same_values(tmp_path):
  """And is told from which epoch on they take the place of an earlier start's."""
  log = EpochLog(tmp_path, 3)
  log.write_epoch({**_row(4), "learning_rate": 0.5})
  log.close()
  (path,) = tmp_path.glob("events.*")
  values, starts = {}, []
  for event in _read_events(path):
    starts += [event.step] * (event.session_log.status == SessionLog.START)
    values |= {value.tag: (event.step, value.simple_value) for value in event.summary.value}
  assert starts == [4]
  assert values.pop("learning_rate") == (4, 0.5)
  assert values == dict.fromkeys(COLUMNS[1:-2], (4, 0.25))


def test_pytorch_is_not_loaded_for_it_but_can_be_after(tmp_path):
  (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
  code = "import attn_unet_jax.runs.tensorboard; print('events'); import torch"
  done = subprocess.run(
    [sys.executable, "-c", code],
    env={**os.environ, "PYTHONPATH": str(tmp_path)},
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert (done.stdout, done.stderr) == ("events\n", "torch was imported\n")


def test_a_log_that_vanished_is_not_begun_again(tmp_path):
  log = EpochLog(tmp_path, 0)
  log.write_epoch(_row(1))
  (tmp_path / "metrics.csv").unlink()
  with pytest.raises(UserError, match=r"metrics\.csv: gone since the run began"):
    log.write_epoch(_row(2))
  log.close()
  assert not (tmp_path / "metrics.csv").exists()


def test_the_curves_are_drawn_and_a_picture_that_cannot_be_ends_no_training(
  tmp_path, monkeypatch, capsys
):
  log = EpochLog(tmp_path, 0)
  log.write_epoch(_row(1))
  first = (tmp_path / "curves.png").read_bytes()
  log.write_epoch(_row(2))  # at once: it waits for the end
  assert (tmp_path / "curves.png").read_bytes() == first
  log.close()
  assert (tmp_path / "curves.png").read_bytes() != first

  def refuse(*_):
    raise UserError("no room")

  monkeypatch.setattr(metrics_csv, "draw_curves", refuse)
  log = EpochLog(tmp_path, 2)
  for epoch in (3, 4):
    log.write_epoch(_row(epoch))
  log.close()
  assert len(read_metrics(tmp_path / "metrics.csv")) == 4
  assert capsys.readouterr().out == "no curves.png from now on: no room\n"


def test_a_picture_goes_to_tensorboard_and_a_fault_in_drawing_ends_nothing(tmp_path, capsys):
  with EpochLog(tmp_path, 0) as log:
    log.write_picture(3, "patch", lambda title: title.encode())
    log.write_picture(4, "patch", lambda _: b"")
    log.write_picture(5, "patch", lambda _: 1 / 0)
  assert capsys.readouterr().out == "no picture of epoch 5: division by zero\n"
  (path,) = tmp_path.glob("events.*")
  found = [
    (event.step, value.tag, value.image.encoded_image_string)
    for event in _read_events(path)
    for value in event.summary.value
  ]
  assert found == [(3, "patch", b"patch, epoch 3")]
