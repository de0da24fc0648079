"""Folds that are trained side by side: each in a process of its own, here one of a few lines."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.config.stored import to_json
from attn_unet_jax.runs.metrics_csv import read_metrics
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.signals import Interrupted
from attn_unet_jax.workflows import fold_places, one_fold, parallel_folds, train_folds
from attn_unet_jax.workflows.fold_places import FoldPlace, FoundDevices, list_places
from attn_unet_jax.workflows.parallel_folds import train_side_by_side
from tests.configs import SMALLEST, small_config, with_keys
from tests.conftest import run_command, run_flags

# What a process does beside telling what it was asked and where it computes.
FAKE = """
import json, os, signal, sys, time
asked = json.loads(sys.stdin.readline())
fold = asked["fold"]
about = [asked, asked["gpu"], time.monotonic()]
print("epoch 1/2: loss of", fold, flush=True)
{}
open(f"{{asked['workdir']}}/{{fold}}.json", "w").write(json.dumps([*about, time.monotonic()]))
"""
PLACES = [FoldPlace(f"GPU {number}", gpu=number) for number in (0, 1)]


@pytest.fixture
def train(tmp_path, monkeypatch):
  """Trains folds at two places by processes of a few lines; returns what each of them told."""
  monkeypatch.setattr(parallel_folds, "_POLL_S", 0.01)

  def start(folds, does="", places=PLACES):
    monkeypatch.setattr(parallel_folds, "_COMMAND", [sys.executable, "-c", FAKE.format(does)])
    train_side_by_side(tmp_path, folds, places, accept_changes=True)
    return {fold: json.loads((tmp_path / f"{fold}.json").read_text()) for fold in folds}

  return start


def test_each_place_has_one_fold_at_a_time(train, tmp_path, capsys):
  # The first two end when both have begun.
  meets = f"""
open(f"{tmp_path}/begun_{{fold}}", "w").close()
late = about[2] + 60
while fold < 3 and time.monotonic() < late and not os.path.exists(f"{tmp_path}/begun_{{2 - fold}}"):
  time.sleep(0.01)
"""
  told = train([0, 2, 3], meets)
  assert told[0][0] == {
    "workdir": str(tmp_path),
    "fold": 0,
    "gpu": 0,
    "cores": [],
    "accept_changes": True,
    "command": sys.argv[1:],
  }
  assert (told[0][1], told[2][1]) == (0, 1)
  (before,) = [one for one in (told[0], told[2]) if one[1] == told[3][1]]
  assert told[3][2] > before[3]  # and the third at the place of the one that was done
  lines = capsys.readouterr().out.splitlines()
  for fold in (0, 2, 3):
    assert f"fold {fold}: epoch 1/2: loss of {fold}" in lines
    assert f"fold {fold}: is finished" in lines
    assert f"loss of {fold}" in (tmp_path / f"fold_{fold}" / "train.log").read_text()
  assert f"fold 2: on GPU 1, see {tmp_path}/fold_2/train.log" in lines


def test_a_fold_that_fails_is_named_and_the_others_go_on(train, tmp_path, capsys):
  fails = "print('error: no such scan', file=sys.stderr) if fold == 1 else None\n"
  fails += "sys.exit(2) if fold == 1 else None"
  with pytest.raises(
    UserError, match=r"1 of its folds failed \(fold 1: no such scan\); train\.log"
  ):
    train([0, 1, 2], fails, PLACES[:1])
  assert (tmp_path / "0.json").exists()
  assert (tmp_path / "2.json").exists()
  assert "fold 1: failed, no such scan; the other folds go on" in capsys.readouterr().out
  # A fault of the program, or of the machine, is none of the user.
  with pytest.raises(RuntimeError, match=r"fold 0: killed by signal 9; fold 1: status 1"):
    train([0, 1], "os.kill(os.getpid(), 9) if fold == 0 else sys.exit(1)")


def test_a_fold_that_ends_before_it_is_asked_is_named(train, tmp_path, monkeypatch):
  class EndedProcess(subprocess.Popen):
    def __init__(self, *arguments, **options):
      super().__init__(*arguments, **options)
      self.wait()

  monkeypatch.setattr(subprocess, "Popen", EndedProcess)
  monkeypatch.setattr(parallel_folds, "_COMMAND", [sys.executable, "-c", "raise SystemExit(3)"])
  with pytest.raises(RuntimeError, match="fold 0: status 3"):
    train_side_by_side(tmp_path, [0], PLACES, accept_changes=True)


def test_a_log_goes_on_and_its_earlier_lines_are_not_shown_again(train, tmp_path, capsys):
  train([1])
  train([1])
  assert (tmp_path / "fold_1" / "train.log").read_text().count("epoch 1/2") == 2
  assert capsys.readouterr().out.count("epoch 1/2") == 2


def test_a_signal_reaches_all_folds_which_save_first(train, tmp_path):
  waits = f"""
def save(*_):
  open(f"{tmp_path}/saved_{{fold}}", "w").close()
  sys.exit(143)
signal.signal(signal.SIGTERM, save)
open(f"{tmp_path}/ready_{{fold}}", "w").close()
time.sleep(60)
"""
  before = signal.signal(signal.SIGTERM, _raise)

  def stop():
    while not all((tmp_path / f"ready_{fold}").exists() for fold in (0, 1)):
      time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

  thread = threading.Thread(target=stop, daemon=True)
  thread.start()
  try:
    with pytest.raises(Interrupted):
      train([0, 1, 2], waits)
  finally:
    signal.signal(signal.SIGTERM, before)
    thread.join()
  assert sorted(path.name for path in tmp_path.glob("saved_*")) == ["saved_0", "saved_1"]


def _raise(number, _):
  raise Interrupted(number)


def test_places_are_gpus_or_parts_of_the_cores(monkeypatch):
  gpus = list_places(FoundDevices("gpu", (0, 1, 2), "3 x GPU"), 2)
  assert [(place.gpu, place.cores) for place in gpus] == [(0, ()), (1, ())]
  monkeypatch.setattr(fold_places, "list_usable_cores", lambda: [3, 5, 7, 9, 11])
  cpu = FoundDevices("cpu", (0,), "cpu, 5 cores")
  assert [place.cores for place in list_places(cpu, 2)] == [(3, 7, 11), (5, 9)]
  assert [place.cores for place in list_places(cpu, 9)] == [(3,), (5,), (7,), (9,), (11,)]


@pytest.mark.parametrize(("told", "fails"), [(["gpu", [0, 1], "2 x GPU"], False), (None, True)])
def test_devices_are_looked_for_by_another_process(monkeypatch, told, fails):
  answer = subprocess.CompletedProcess([], int(fails), f"said\n{json.dumps(told)}\n", "broken")
  monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
  monkeypatch.setattr(jax.config, "update", lambda *change: changes.append(change))
  changes = []
  if fails:
    with pytest.raises(RuntimeError, match="broken"):
      fold_places.find_devices()
  else:
    assert fold_places.find_devices() == FoundDevices(*told)
  assert changes == ([] if fails else [("jax_platforms", "cpu")])


def test_a_device_that_is_neither_gpu_nor_cpu_is_refused(monkeypatch):
  answer = subprocess.CompletedProcess([], 0, json.dumps(["tpu", [0, 1], "2 x TPU v5"]), "")
  monkeypatch.setattr(subprocess, "run", lambda *_, **__: answer)
  with pytest.raises(UserError, match=r"--parallel_folds: .* 2 x TPU v5; leave it out"):
    fold_places.find_devices()


def test_the_process_of_a_fold_trains_what_it_is_asked_for(config, tmp_path, monkeypatch):
  keys = {"data.fold": "all", "train.epochs": 7}
  (tmp_path / "config.json").write_text(to_json(with_keys(config, keys)))
  asked = {"workdir": str(tmp_path), "fold": 3, "accept_changes": True}
  asked |= {"gpu": 2, "cores": [5], "command": ["--workdir=run"]}
  reader, writer = os.pipe()
  os.write(writer, f"{json.dumps(asked)}\n".encode())
  done, stopped = [], threading.Event()
  monkeypatch.setattr(sys, "argv", ["one_fold"])
  monkeypatch.setattr(os, "sched_setaffinity", lambda *given: done.append(given), raising=False)
  monkeypatch.setattr(os, "kill", lambda *_: stopped.set())
  monkeypatch.setattr(jax.config, "update", lambda *given: done.append(given))

  def train(config, workdir, _):
    done.append((config, workdir))
    assert not stopped.is_set()
    os.close(writer)  # as where the process that asked is killed
    assert stopped.wait(30)

  monkeypatch.setattr(train_folds, "train_and_describe", train)
  with os.fdopen(reader) as stdin:
    monkeypatch.setattr(sys, "stdin", stdin)
    one_fold.main()
  trained = with_keys(config, {**keys, "data.fold": 3, "data.accept_changes": True})
  keys = "jax_cuda_visible_devices", "jax_rocm_visible_devices"
  assert done == [(0, [5]), *((key, "2") for key in keys), (trained, tmp_path)]
  assert sys.argv == ["one_fold", "--workdir=run"]


@pytest.mark.soak
def test_folds_side_by_side_are_those_one_after_the_other(phantoms, tmp_path):
  """By the commands; the second start finds one of two folds missing."""
  ids = open_fold(with_keys(small_config(), {"data.dir": str(phantoms)}).data).dataset.ids
  listing = [
    {"training": [ids[0]], "validation": [ids[1]], "test": [ids[2]]},
    {"training": [ids[2]], "validation": [ids[1]], "test": [ids[0]]},
  ]
  folds = tmp_path / "folds.json"
  folds.write_text(json.dumps({"folds": listing}))
  keys = {f"--config.{key}={value}" for key, value in SMALLEST.items()}
  keys |= {f"--config.data.folds={folds}", "--config.data.fold=all"}
  one, other = tmp_path / "one", tmp_path / "other"
  done = run_command("attn_unet_jax.main", *run_flags(phantoms, one), *keys)
  assert (done.returncode, done.stderr) == (0, ""), done.stderr
  flags = (*run_flags(phantoms, other), *keys, "--parallel_folds")
  done = run_command("attn_unet_jax.main", *flags, env={"OMP_NUM_THREADS": "1"}, timeout=600)
  assert (done.returncode, done.stderr) == (0, ""), done.stderr
  assert "fold 1: epoch 2/2: loss train" in done.stdout
  tables = [read_metrics(folder / "fold_1" / "metrics.csv") for folder in (one, other)]
  losses = [[float(row["train_seg_loss"]) for row in table] for table in tables]
  np.testing.assert_allclose(*losses, rtol=1e-3)
  shutil.rmtree(other / "fold_1")
  done = run_command("attn_unet_jax.main", *flags, env={"OMP_NUM_THREADS": "1"}, timeout=600)
  assert "fold 0 of 2: is finished" in done.stdout
  assert "fold 0: on" not in done.stdout
  cases = [(folder / "evaluation" / "cases.csv").read_text() for folder in (one, other)]
  assert [text.count("\n") for text in cases] == [3, 3]
