from attn_unet_jax.training.logs import COLUMNS, EpochLog, duration, read_metrics


def _row(epoch):
  return {**dict.fromkeys(COLUMNS, 0.25), "epoch": epoch, "validation_dsc": None}


def test_a_run_that_goes_on_rewrites_what_its_checkpoint_does_not_hold(tmp_path):
  log = EpochLog(tmp_path, 0)
  for epoch in (1, 2, 3):
    log.write(_row(epoch))
  log.close()
  log = EpochLog(tmp_path, 2)
  log.write({**_row(3), "train_seg_loss": 0.125})
  log.close()
  rows = read_metrics(tmp_path / "metrics.csv")
  assert [row["epoch"] for row in rows] == ["1", "2", "3"]
  assert rows[2]["train_seg_loss"] == "0.125"
  assert rows[2]["validation_dsc"] == ""
  assert list(rows[0]) == list(COLUMNS)
  assert list(tmp_path.glob("events.*"))


def test_no_file_has_no_rows(tmp_path):
  assert read_metrics(tmp_path / "metrics.csv") == []


def test_durations_are_readable():
  assert [duration(s) for s in (5.4, 75.2, 3725)] == ["5s", "1m15s", "1h02m"]
