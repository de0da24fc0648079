"""A resumed run knows the data that it began with: case by case, and what a user may accept."""

import json

import numpy as np
import pytest

from attn_unet_jax.config.stored import load_config
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows import train as workflow
from attn_unet_jax.workflows.run_data import open_run_data
from attn_unet_jax.workflows.train_run import train_run
from tests.cases.test_digests import GRID, add_case
from tests.configs import with_keys

ACCEPT = {"data.accept_changes": True}


@pytest.fixture
def run(config, tmp_path, monkeypatch):
  """Starts a run whose training is left out; its config, its folder and its data."""
  data, workdir = tmp_path / "data", tmp_path / "run"
  for seed, name in enumerate("abcdefghij"):
    add_case(data, name, seed)
  config = with_keys(config, {"data.dataset": "", "data.folder": str(data)})

  def train(config, module, load, validate, store, workdir):
    (workdir / "checkpoints" / "3").mkdir(parents=True, exist_ok=True)

  monkeypatch.setattr(workflow, "train_network", train)
  monkeypatch.setattr(workflow, "load_best", lambda _: Tested())
  monkeypatch.setattr(workflow, "evaluate_run", lambda *_: None)
  monkeypatch.setattr(workflow, "open_checkpoints", NoCheckpoints)
  return config, workdir, data


class Tested:
  classes, variables, step = ("pancreas",), None, 3


class NoCheckpoints:
  def __init__(self, *_):
    pass

  def __enter__(self):
    return self

  def __exit__(self, *_):
    pass


def _redraw(data, name):
  label = Volume(np.ones(GRID, np.uint8), np.eye(4))
  write_nifti(data / "labelsTr" / f"{name}.nii.gz", label)


def _files(workdir):
  return {path: path.read_bytes() for path in workdir.rglob("*.json")}


def test_a_run_goes_on_in_silence_where_nothing_changed(run, capsys):
  config, workdir, _ = run
  train_run(config, workdir)
  digests = json.loads((workdir / "digests.json").read_text())
  assert sorted(digests["cases"]) == digests["ids"] == list("abcdefghij")
  capsys.readouterr()
  train_run(config, workdir)
  said = capsys.readouterr().out
  assert said.startswith(f"resuming {workdir}")
  assert "digest" not in said
  assert "accepted_data_changes" not in json.loads((workdir / "run.json").read_text())


def test_another_label_is_refused_and_nothing_is_written(run):
  config, workdir, data = run
  train_run(config, workdir)
  before = _files(workdir)
  _redraw(data, "c")
  add_case(data, "new")
  told = (
    rf"^{workdir}: the data is not what the run began with \(changed: label of c; new, and in no "
    r"part of the run: new\).*--config\.data\.accept_changes=true$"
  )
  with pytest.raises(UserError, match=told):
    train_run(config, workdir)
  assert _files(workdir) == before


def test_accepted_changes_are_recorded_and_the_next_start_accepts_no_others(run, capsys):
  config, workdir, data = run
  train_run(config, workdir)
  _redraw(data, "c")
  train_run(with_keys(config, ACCEPT), workdir)
  assert "accepted changes of the data: changed: label of c" in capsys.readouterr().out
  assert load_config(workdir / "config.json") == config
  (accepted,) = json.loads((workdir / "run.json").read_text())["accepted_data_changes"]
  assert accepted["changes"] == "changed: label of c"
  train_run(config, workdir)
  _redraw(data, "d")
  with pytest.raises(UserError, match="changed: label of d"):
    train_run(config, workdir)


def test_a_case_that_went_from_the_second_set_is_left_out_where_that_is_accepted(run, tmp_path):
  config, workdir, _ = run
  also = tmp_path / "also"
  for seed, name in enumerate("xyz"):
    add_case(also, name, seed)
  config = with_keys(config, {"data.also": str(also)})
  train_run(config, workdir)

  def drop(name):
    for part in ("imagesTr", "labelsTr"):
      (also / part / f"{name}.nii.gz").unlink()

  drop("y")
  before = _files(workdir)
  told = r"\(of config\.data\.also: gone: y\).*data\.accept_changes=true$"
  with pytest.raises(UserError, match=told):
    train_run(config, workdir)
  assert _files(workdir) == before
  train_run(with_keys(config, ACCEPT), workdir)
  assert json.loads((workdir / "folds.json").read_text())["also"] == ["x", "z"]
  (accepted,) = json.loads((workdir / "run.json").read_text())["accepted_data_changes"]
  assert accepted["changes"] == "of config.data.also: gone: y"
  train_run(config, workdir)
  drop("x")
  drop("z")
  add_case(also, "w")
  with pytest.raises(UserError, match="all cases of the run are gone"):
    train_run(with_keys(config, ACCEPT), workdir)


def test_a_change_of_the_second_set_is_refused(run, tmp_path, capsys):
  config, workdir, data = run
  also = tmp_path / "also"
  for seed, name in enumerate("xyz"):
    add_case(also, name, seed)
  config = with_keys(config, {"data.also": str(also)})
  train_run(config, workdir)
  train_run(config, workdir)
  _redraw(also, "y")
  _redraw(data, "c")
  add_case(also, "w")
  told = (
    r"\(changed: label of c; of config\.data\.also: changed: label of y; new, and in no part of "
    r"the run: w\)"
  )
  with pytest.raises(UserError, match=told):
    train_run(config, workdir)
  train_run(with_keys(config, ACCEPT), workdir)
  train_run(config, workdir)
  # A run of the version before, which recorded the own set alone.
  digests = json.loads((workdir / "digests.json").read_text())
  del digests["also"]
  (workdir / "digests.json").write_text(json.dumps(digests))
  capsys.readouterr()
  train_run(config, workdir)
  assert "an earlier version recorded no digests" in capsys.readouterr().out
  assert set(json.loads((workdir / "digests.json").read_text())["also"]["cases"]) == set("xyz")


def test_a_case_that_went_is_left_out_where_that_is_accepted(run):
  config, workdir, data = run
  train_run(config, workdir)
  listing = json.loads((workdir / "folds.json").read_text())["folds"][0]
  gone = listing["training"][0]
  for part in ("imagesTr", "labelsTr"):
    (data / part / f"{gone}.nii.gz").unlink()
  with pytest.raises(UserError, match=rf"\(gone: {gone}\)"):
    train_run(config, workdir)
  assert json.loads((workdir / "folds.json").read_text())["folds"][0] == listing
  train_run(with_keys(config, ACCEPT), workdir)
  rest = {**listing, "training": listing["training"][1:]}
  assert json.loads((workdir / "folds.json").read_text())["folds"][0] == rest
  train_run(config, workdir)


def test_stages_take_no_case_that_changed_even_if_that_is_accepted(run):
  """A case that is gone they go on without."""
  config, workdir, data = run
  config = with_keys(config, {"stages.count": 2})
  workdir.mkdir()
  open_run_data(config, workdir).write(workdir)
  (workdir / "body.json").write_text("{}")
  (data / "labelsTr" / "a.nii.gz").unlink()
  (data / "imagesTr" / "a.nii.gz").unlink()
  with pytest.raises(UserError, match=r"\(gone: a\).*accept_changes=true$"):
    open_run_data(config, workdir)
  assert open_run_data(with_keys(config, ACCEPT), workdir).accepted == "gone: a"
  _redraw(data, "c")
  told = r"changed: label of c.*boxes and tables of the old c; put it back, or train in another --w"
  for asked in (config, with_keys(config, ACCEPT)):
    with pytest.raises(UserError, match=told):
      open_run_data(asked, workdir)


def test_moved_data_is_the_same_data(run):
  config, workdir, data = run
  train_run(config, workdir)
  moved = data.with_name("moved")
  data.rename(moved)
  train_run(with_keys(config, {"data.folder": str(moved)}), workdir)


def test_a_second_set_that_moved_is_the_same_where_its_digests_are_known(run, tmp_path, capsys):
  config, workdir, _ = run
  also, moved = tmp_path / "also", tmp_path / "moved"
  for seed, name in enumerate("xyz"):
    add_case(also, name, seed)
  config = with_keys(config, {"data.also": str(also)})
  train_run(config, workdir)
  also.rename(moved)
  config = with_keys(config, {"data.also": str(moved)})
  train_run(config, workdir)
  assert f"resumes with data.also='{moved}', was '{also}'" in capsys.readouterr().out
  _redraw(moved, "y")
  with pytest.raises(UserError, match=r"of config\.data\.also: changed: label of y"):
    train_run(config, workdir)
  moved.rename(also)
  config = with_keys(config, {"data.also": str(also)})
  digests = json.loads((workdir / "digests.json").read_text())
  del digests["also"]
  (workdir / "digests.json").write_text(json.dumps(digests))
  with pytest.raises(
    UserError, match=rf"another config \(data\.also: '{moved}' there, '{also}' now"
  ):
    train_run(config, workdir)


def test_a_run_gains_and_loses_no_second_set(run, tmp_path):
  config, workdir, _ = run
  for seed, name in enumerate("xyz"):
    add_case(tmp_path / "also", name, seed)
  both = with_keys(config, {"data.also": str(tmp_path / "also")})
  for began, asked in ((config, both), (both, config)):
    folder = workdir.with_name(f"with{began.data.also and 'out'}")
    train_run(began, folder)
    with pytest.raises(UserError, match=r"another config \(data\.also: "):
      train_run(asked, folder)


def test_a_run_of_an_earlier_version_goes_on_and_is_recorded(run, capsys):
  config, workdir, data = run
  train_run(config, workdir)
  (workdir / "digests.json").unlink()
  capsys.readouterr()
  train_run(config, workdir)
  assert capsys.readouterr().out.count("an earlier version recorded no digests of the data") == 1
  _redraw(data, "c")
  with pytest.raises(UserError, match="changed: label of c"):
    train_run(config, workdir)
