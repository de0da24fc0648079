"""Each writer has the epochs of all starts; MLflow and W&B are tried where they are installed.

MLflow writes to a store of files, which its `mlflow ui` shows too; W&B writes offline, and what it
wrote is read back from its own file.
"""

import json
import struct
import sys
from types import SimpleNamespace

import pytest

from attn_unet_jax.runs import writers
from attn_unet_jax.runs.metrics_csv import EpochLog
from attn_unet_jax.runs.trackers import keep_tracker_id, read_tracker_id
from attn_unet_jax.runs.writers import check_writers
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.workflows.run_folder import open_run_folder
from attn_unet_jax.workflows.train_run import train_run
from tests.configs import with_keys
from tests.runs.test_metrics_csv import _row

CONFIG = {"seed": 0, "train": {"epochs": 3, "writers": ["mlflow"]}, "data": {"dataset": ""}}


@pytest.fixture
def workdir(tmp_path):
  folder = tmp_path / "run"
  folder.mkdir()
  (folder / "config.json").write_text(json.dumps(CONFIG))
  return folder


@pytest.fixture
def mlflow(tmp_path, monkeypatch):
  """A store of files; MLflow keeps it as it is, and asks to be told that it is meant."""
  found = pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
  monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
  monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
  return found


@pytest.fixture
def wandb(monkeypatch):
  found = pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
  monkeypatch.setenv("WANDB_MODE", "offline")
  yield found
  found.teardown()


def _train(workdir, first, last, writer, stop=False):
  """Writes epochs as a training does that begins, or goes on, at `first`."""
  try:
    with EpochLog(workdir, first - 1, [writer]) as log:
      for epoch in range(first, last + 1):
        gate = {"organ": epoch / 4, "shell": float("nan"), "elsewhere": 0.0}
        log.write_gates(epoch, {"level2/0": gate})
        log.write_epoch(_row(epoch) | {"learning_rate": 0.5 / epoch})
      if stop:
        raise KeyboardInterrupt
  except KeyboardInterrupt:
    pass


def test_a_run_that_goes_on_is_one_run_of_mlflow(workdir, mlflow):
  client = mlflow.MlflowClient()
  _train(workdir, 1, 3, "mlflow", stop=True)
  (run,) = client.search_runs([client.get_experiment_by_name("attn-unet-jax").experiment_id])
  assert read_tracker_id(workdir, "mlflow") == run.info.run_id
  assert (run.info.run_name, run.info.status) == (str(workdir), "KILLED")
  assert run.data.params == {
    "seed": "0",
    "train.epochs": "3",
    "train.writers": "['mlflow']",
    "data.dataset": "",
  }
  _train(workdir, 3, 4, "mlflow")  # the checkpoint was of epoch 2
  (run,) = client.search_runs([run.info.experiment_id])
  assert run.info.status == "FINISHED"
  history = client.get_metric_history(run.info.run_id, "learning_rate")
  assert [(one.step, one.value) for one in history] == [(n, 0.5 / n) for n in (1, 2, 3, 3, 4)]
  assert run.data.metrics["attention/level2/0/organ"] == 1.0
  assert run.data.metrics["train_seg_loss"] == 0.25
  # What was not measured, or is no number, is no value.
  assert not {"validation_dsc", "attention/level2/0/shell", "epoch"} & run.data.metrics.keys()
  client.delete_run(run.info.run_id)
  with pytest.raises(UserError, match=rf"run {run.info.run_id} cannot be .*remove .*trackers\.js"):
    _train(workdir, 5, 5, "mlflow")


def test_a_store_that_mlflow_does_not_have_is_refused_before_training(mlflow, monkeypatch):
  monkeypatch.setenv("MLFLOW_TRACKING_URI", "nothing://there")
  with pytest.raises(UserError, match=r"writers=mlflow: no store .*MLFLOW_TRACKING_URI names one"):
    check_writers(["mlflow"])


def test_a_store_that_fails_in_training_is_said_once(workdir, mlflow, monkeypatch, capsys):
  with EpochLog(workdir, 0, ["mlflow", "tensorboard"]) as log:
    log.write_epoch(_row(1))
    monkeypatch.setattr(mlflow.MlflowClient, "log_batch", lambda *_, **__: 1 / 0)
    log.write_epoch(_row(2))
    log.write_epoch(_row(3))
  said = capsys.readouterr().out
  assert said.count("nothing is written to MLflow from now on: ") == 1
  assert len((workdir / "metrics.csv").read_text().splitlines()) == 4


def _read_wandb(path):
  """Yields the records of W&B's file: blocks of checksum, length and kind, after 7 bytes."""
  from wandb.proto.wandb_internal_pb2 import Record

  data, at = path.read_bytes(), 7
  assert len(data) < 2**15  # within one block
  while at < len(data):
    _, length, kind = struct.unpack("<IHB", data[at : at + 7])
    assert kind == 1  # whole
    yield Record.FromString(data[at + 7 : at + 7 + length])
    at += 7 + length


def test_a_run_that_goes_on_is_one_run_of_wandb(workdir, wandb):
  _train(workdir, 1, 2, "wandb", stop=True)
  _train(workdir, 2, 3, "wandb")
  begun = read_tracker_id(workdir, "wandb")
  # Offline each start has a folder; `wandb sync` joins those of one id.
  found, ended = [], []
  for path in sorted(workdir.glob(f"wandb/offline-run-*/run-{begun}.wandb")):
    records = [*_read_wandb(path)]
    (about,) = [one.run for one in records if one.HasField("run")]
    assert (about.run_id, about.project, about.display_name) == (
      begun,
      "attn-unet-jax",
      str(workdir),
    )
    assert {"train.epochs", "data.dataset"} <= {one.key for one in about.config.update}
    found += [
      {item.key or item.nested_key[0]: json.loads(item.value_json) for item in one.history.item}
      for one in records
      if one.HasField("history")
    ]
    ended += [one.exit.exit_code for one in records if one.HasField("exit")]
  rates = [(one["epoch"], one["learning_rate"]) for one in found if "learning_rate" in one]
  assert rates == [(1, 0.5), (2, 0.25), (2, 0.25), (3, 0.5 / 3)]
  gates = [one["attention/level2/0/organ"] for one in found if "learning_rate" not in one]
  assert gates == [0.25, 0.5, 0.5, 0.75]
  assert not any("attention/level2/0/shell" in one for one in found)
  assert ended == [1, 0]


def test_wandb_without_an_account_is_refused_and_does_not_ask(wandb, monkeypatch, tmp_path):
  for name in ("WANDB_MODE", "WANDB_API_KEY"):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setenv("NETRC", str(tmp_path / "none"))
  wandb.teardown()
  with pytest.raises(UserError, match=r"writers=wandb: no account; .*WANDB_MODE=offline"):
    check_writers(["wandb"])


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_missing_package_is_refused_before_anything_is_written(
  config, tmp_path, monkeypatch, name
):
  monkeypatch.setitem(sys.modules, name, None)
  with pytest.raises(UserError, match=rf"{name} needs {name}, .*pip install -e '\.\[{name}\]'"):
    train_run(with_keys(config, {"train.writers": (name,)}), tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_no_writer_and_a_fault_of_one_that_is_opened(workdir, monkeypatch):
  EpochLog(workdir, 0, []).close()
  assert not [*workdir.glob("events*")]
  closed = []
  first = SimpleNamespace(close=lambda done: closed.append(done))

  def refuse(*_):
    raise UserError("no room")

  monkeypatch.setattr(writers, "_OPENERS", {"tensorboard": lambda *_: first, "mlflow": refuse})
  with pytest.raises(UserError, match="no room"):
    EpochLog(workdir, 0, ["tensorboard", "mlflow"])
  assert closed == [False]


def test_a_folder_that_begins_again_forgets_its_earlier_run(config, tmp_path):
  open_run_folder(tmp_path, config)
  keep_tracker_id(tmp_path, "mlflow", "abc")
  keep_tracker_id(tmp_path, "wandb", "def")
  (tmp_path / "checkpoints" / "3").mkdir(parents=True)
  open_run_folder(tmp_path, with_keys(config, {"train.writers": ("mlflow",)}))
  assert [read_tracker_id(tmp_path, name) for name in ("mlflow", "wandb")] == ["abc", "def"]
  (tmp_path / "checkpoints" / "3").rmdir()
  open_run_folder(tmp_path, config)
  assert read_tracker_id(tmp_path, "mlflow") == ""
