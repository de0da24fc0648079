import errno
import fcntl
import json
import subprocess
import sys

import pytest

from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.config.stored import load_config, to_json
from attn_unet_jax.runtime import file_lock
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.workflows.run_folder import keep_earlier_defaults, open_run_folder
from tests.configs import with_keys
from tests.conftest import ROOT

KEY = "data.label_resampling"
HOLD = """
import sys
from pathlib import Path
from attn_unet_jax.workflows.run_folder import open_run_folder
from tests.configs import small_config

open_run_folder(Path(sys.argv[1]), small_config())
print("claimed", flush=True)
sys.stdin.read()
"""


def _begun(workdir, stored):
  """The folder of a run with progress and that text as its config."""
  (workdir / "checkpoints" / "3").mkdir(parents=True)
  (workdir / "config.json").write_text(stored)
  return workdir


def test_a_resumed_run_keeps_the_resampling_that_it_was_trained_with(tmp_path, capsys):
  """Whether its config names it or is older than the choice; the same flags go on."""
  nested = json.loads(to_json(replace_keys(RunConfig(), {KEY: "nearest"})))
  older = json.loads(json.dumps(nested))
  del older["data"]["label_resampling"]
  for number, stored in enumerate((nested, older)):
    workdir = _begun(tmp_path / str(number), json.dumps(stored))
    config = keep_earlier_defaults(RunConfig(), workdir)
    assert config == replace_keys(RunConfig(), {KEY: "nearest"})
    assert f"{workdir} goes on with {KEY}=nearest, as it began" in capsys.readouterr().out
    assert open_run_folder(workdir, config)
    assert (
      json.loads((workdir / "config.json").read_text())["data"]["label_resampling"] == "nearest"
    )


def test_a_run_without_progress_and_a_new_one_have_the_new_default(tmp_path, capsys):
  assert keep_earlier_defaults(RunConfig(), tmp_path) == RunConfig()
  (tmp_path / "config.json").write_text(to_json(replace_keys(RunConfig(), {KEY: "nearest"})))
  assert keep_earlier_defaults(RunConfig(), tmp_path) == RunConfig()
  workdir = _begun(tmp_path / "new", to_json(RunConfig()))
  assert keep_earlier_defaults(RunConfig(), workdir) == RunConfig()
  assert capsys.readouterr().out == ""


def test_another_resampling_than_the_default_is_still_another_run(tmp_path):
  asked = replace_keys(RunConfig(), {KEY: "onehot_linear"})
  workdir = _begun(tmp_path / "run", to_json(replace_keys(RunConfig(), {KEY: "nearest"})))
  assert keep_earlier_defaults(asked, workdir) == asked
  with pytest.raises(UserError, match=r"label_resampling: 'nearest' there, 'onehot_linear' now"):
    open_run_folder(workdir, asked)


def test_a_new_folder_is_claimed_and_an_untrained_one_again(config, tmp_path):
  workdir = tmp_path / "a" / "b"
  assert open_run_folder(workdir, config) is False
  config = with_keys(config, {"seed": 1})
  assert open_run_folder(workdir, config) is False
  assert json.loads((workdir / "config.json").read_text())["seed"] == 1


def test_a_trained_run_of_another_config_is_not_overwritten(config, tmp_path):
  open_run_folder(tmp_path, config)
  (tmp_path / "checkpoints" / "3").mkdir(parents=True)
  assert open_run_folder(tmp_path, config) is True
  before = (tmp_path / "config.json").read_text()
  config = with_keys(config, {"seed": 7})
  with pytest.raises(UserError, match="seed: 0 there, 7 now"):
    open_run_folder(tmp_path, config)
  assert (tmp_path / "config.json").read_text() == before


def test_a_run_that_goes_on_may_be_computed_in_another_way(config, tmp_path, capsys):
  config = with_keys(config, {"parallel.data": 8, "data.source": "resident"})
  open_run_folder(tmp_path, config)
  (tmp_path / "checkpoints" / "3").mkdir(parents=True)
  assert open_run_folder(tmp_path, config) is True
  assert capsys.readouterr().out == ""
  config = with_keys(config, {"parallel.data": 1, "data.source": "streaming"})
  assert open_run_folder(tmp_path, config) is True
  said = (
    f"{tmp_path} resumes with data.source='streaming', was 'resident', parallel.data=1, was 8\n"
  )
  assert capsys.readouterr().out == said
  assert load_config(tmp_path / "config.json") == config
  config = with_keys(config, {"parallel.data": 2, "optimizer.learning_rate": 0.5})
  with pytest.raises(UserError, match=r"config \(optimizer.learning_rate: 0.01 there, 0.5 now\)"):
    open_run_folder(tmp_path, config)
  assert load_config(tmp_path / "config.json").parallel.data == 1


def test_a_run_may_be_lengthened_and_its_data_moved(config, tmp_path, capsys):
  """Unless its rates go by the last epoch."""
  config = with_keys(config, {"optimizer.schedule": "step", "data.folder": "a"})
  open_run_folder(tmp_path, config)
  (tmp_path / "checkpoints" / "3").mkdir(parents=True)
  config = with_keys(config, {"train.epochs": 3, "train.keep": 1, "data.folder": "b"})
  assert open_run_folder(tmp_path, config) is True
  said = "resumes with data.folder='b', was 'a', train.epochs=3, was 2, train.keep=1, was 2\n"
  assert capsys.readouterr().out.endswith(said)
  config = with_keys(config, {"optimizer.schedule": "cosine"})
  other = tmp_path / "cosine"
  open_run_folder(other, config)
  (other / "checkpoints" / "3").mkdir(parents=True)
  config = with_keys(config, {"train.epochs": 4})
  told = rf"train\.epochs: 3 there, 4 now.*cosine .*--config\.init\.workdir={other}$"
  with pytest.raises(UserError, match=told):
    open_run_folder(other, config)


def test_a_run_in_stages_keeps_its_length(config, tmp_path):
  """Stages that are finished would not be trained on, and the others would."""
  config = with_keys(config, {"stages.count": 2})
  open_run_folder(tmp_path, config)
  (tmp_path / "body.json").write_text("{}")
  for schedule in ("constant", "cosine"):
    config = with_keys(config, {"optimizer.schedule": schedule})
    (tmp_path / "config.json").write_text(to_json(config))
    told = r"another length \(train\.epochs: 2 there, 3 now\); its stages.*another --workdir$"
    with pytest.raises(UserError, match=told):
      open_run_folder(tmp_path, with_keys(config, {"train.epochs": 3}))


def test_a_run_becomes_no_shorter_than_it_is(config, tmp_path):
  """Its epochs have 3 steps, and the last checkpoint is of the second step of its third epoch."""
  config = with_keys(config, {"train.epochs": 10})
  open_run_folder(tmp_path, config)
  (tmp_path / "checkpoints" / "8").mkdir(parents=True)
  before = (tmp_path / "config.json").read_text()
  told = rf"epochs=2: the newest checkpoint of {tmp_path} is of epoch 3 already; give 3 or more"
  with pytest.raises(UserError, match=told):
    open_run_folder(tmp_path, with_keys(config, {"train.epochs": 2}))
  assert (tmp_path / "config.json").read_text() == before
  assert open_run_folder(tmp_path, with_keys(config, {"train.epochs": 3})) is True


def test_all_folds_become_no_shorter_than_one_of_them_is(config, tmp_path):
  config = with_keys(config, {"train.epochs": 10, "data.fold": "all"})
  open_run_folder(tmp_path, config)
  fold = {"training": ["a"], "validation": ["b"], "test": ["c"]}
  (tmp_path / "folds.json").write_text(json.dumps({"folds": [fold, fold]}))
  (tmp_path / "fold_1" / "checkpoints" / "9").mkdir(parents=True)
  with pytest.raises(UserError, match=r"fold_1 is of epoch 3 already"):
    open_run_folder(tmp_path, with_keys(config, {"train.epochs": 2}))


def test_the_devices_stay_where_each_has_batch_statistics_of_its_own(config, tmp_path):
  config = with_keys(config, {"parallel.batch_norm": "local", "parallel.data": 8})
  open_run_folder(tmp_path, config)
  (tmp_path / "checkpoints" / "3").mkdir(parents=True)
  config = with_keys(config, {"parallel.data": 1})
  with pytest.raises(UserError, match=r"parallel\.data: 8 there, 1 now"):
    open_run_folder(tmp_path, config)


def test_two_processes_do_not_train_one_run(config, tmp_path):
  """The second is refused until the first has ended, however it ends."""
  command = [sys.executable, "-c", HOLD, str(tmp_path)]
  pipe = subprocess.PIPE
  with subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True) as first:
    assert first.stdout.readline() == "claimed\n"
    before = (tmp_path / "config.json").read_text()
    config = with_keys(config, {"seed": 1})
    told = rf"{tmp_path}: another process is training it \(process {first.pid} on .*\); wait for"
    with pytest.raises(UserError, match=told):
      open_run_folder(tmp_path, config)
    assert (tmp_path / "config.json").read_text() == before
    first.kill()
  for _ in range(2):  # a process does not shut itself out
    assert open_run_folder(tmp_path, config) is False
  with (tmp_path / ".lock").open() as other, pytest.raises(BlockingIOError):
    fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize(("number", "goes_on"), [(errno.ENOLCK, True), (errno.EIO, False)])
def test_a_file_system_without_locks_will_do(config, tmp_path, monkeypatch, number, goes_on):
  def flock(*_):
    raise OSError(number, "no")

  monkeypatch.setattr(file_lock.fcntl, "flock", flock)
  if goes_on:
    assert open_run_folder(tmp_path, config) is False
  else:
    with pytest.raises(UserError, match=r"cannot be written \(no\)"):
      open_run_folder(tmp_path, config)


def test_a_folder_that_cannot_be_written_is_refused(config, tmp_path):
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match="cannot be written"):
    open_run_folder(tmp_path / "file" / "run", config)


def test_what_a_kill_left_beside_a_text_is_removed(config, tmp_path):
  """By who may write the run, and nothing else is."""
  kill = "os.kill(os.getpid(), 9)"
  code = (
    "import os, pathlib, sys\nfrom attn_unet_jax.runtime.files import write_text\n"
    f"pathlib.Path.replace = lambda *_: {kill}\n"
    "write_text(pathlib.Path(sys.argv[1]), 'half')"
  )
  done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run.json")], cwd=ROOT)
  assert done.returncode == -9
  (left,) = tmp_path.iterdir()
  others = {".mine", "a.part", ".part", ".a.1"}
  for name in others:
    (tmp_path / name).write_text("")
  open_run_folder(tmp_path, config)
  assert not left.exists()
  assert {path.name for path in tmp_path.iterdir()} == {*others, ".lock", "config.json"}


def test_a_foreign_config_json_is_not_overwritten(config, tmp_path):
  (tmp_path / "config.json").write_text('{"name": "something else"}')
  with pytest.raises(UserError, match=r"config\.json"):
    open_run_folder(tmp_path, config)
  assert "something else" in (tmp_path / "config.json").read_text()
