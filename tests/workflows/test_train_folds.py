"""All folds of a list are trained in one folder, resumed, and scored together."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.cases.folds import by_hash
from attn_unet_jax.config.stored import load_config
from attn_unet_jax.evaluation.quality_scores import rank_estimates, write_estimates
from attn_unet_jax.evaluation.scoring import write_scores
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.signals import Interrupted
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows import load_run, open_ensemble, train, train_folds
from attn_unet_jax.workflows.fold_runs import expand_fold_runs
from attn_unet_jax.workflows.load_run import LoadedRun, load_best
from attn_unet_jax.workflows.other_dataset import list_seen_cases
from attn_unet_jax.workflows.pool_scores import check_pooling, pool_scores, remove_pooled
from attn_unet_jax.workflows.report_run import report_run
from attn_unet_jax.workflows.train_run import train_run
from tests.cases.test_digests import add_case
from tests.configs import with_keys
from tests.line import Line
from tests.workflows.test_run_data import NoCheckpoints

IDS = "abcdefghij"


class Tiny(Line):
  num_classes = 2


@pytest.fixture
def run(config, tmp_path, monkeypatch):
  """Starts a run of five folds whose trainings are left out; `asked` lists them."""
  data, workdir, asked = tmp_path / "data", tmp_path / "run", []
  for seed, name in enumerate(IDS):
    add_case(data, name, seed)
  keys = {"data.dataset": "", "data.folder": str(data), "data.fold": "all"}
  stop = SimpleNamespace(at=None)

  def train_network(config, module, load, validate, store, folder):
    asked.append((config.data.fold, [*load("training").ids]))
    (folder / "checkpoints" / "3").mkdir(parents=True, exist_ok=True)
    if config.data.fold == stop.at:
      raise Interrupted(15)

  def evaluate(trained, fold, folder, part="test"):
    rows = {case: {"pancreas": _score(trained.config.data.fold)} for case in fold.split.test}
    write_scores(rows, folder / "evaluation", {"part": part, "checkpoint_step": trained.step})
    estimates = {case: {"pancreas": 0.2 + trained.config.data.fold / 5} for case in rows}
    ranked = rank_estimates(estimates, rows)
    write_estimates(folder / "evaluation", estimates, rows, ranked)

  for module in (train, train_folds):
    monkeypatch.setattr(module, "check_training", lambda *_: None)
  monkeypatch.setattr(train, "SlidingWindow", lambda *_: SimpleNamespace(use=lambda _: None))
  monkeypatch.setattr(train, "train_network", train_network)
  monkeypatch.setattr(train, "evaluate_run", evaluate)
  monkeypatch.setattr(train, "open_checkpoints", NoCheckpoints)
  found = SimpleNamespace(classes=("pancreas",), variables=None, step=3)
  monkeypatch.setattr(train, "load_best", lambda _: found)
  monkeypatch.setattr(train_folds, "report_after_training", lambda _: None)
  monkeypatch.setattr(train_folds, "write_card_after_training", lambda _: None)
  return SimpleNamespace(
    config=with_keys(config, keys), workdir=workdir, data=data, asked=asked, stop=stop
  )


def _score(fold):
  return {"dsc": 0.5 + fold / 10, "volume_ml": 1.0, "reference_volume_ml": 1.0}


def _rows(workdir):
  with (workdir / "evaluation" / "cases.csv").open() as file:
    return [*csv.DictReader(file)]


def _files(workdir):
  return {path: path.read_bytes() for path in workdir.rglob("*.*") if path.is_file()}


def test_every_case_is_scored_by_the_fold_that_did_not_see_it(run, capsys):
  train_run(run.config, run.workdir)
  assert [fold for fold, _ in run.asked] == [0, 1, 2, 3, 4]
  seen = dict(run.asked)
  rows = _rows(run.workdir)
  assert sorted(row["case"] for row in rows) == [*IDS]
  for row in rows:
    fold = int(row["fold"])
    assert row["case"] in by_hash(IDS)[fold]["test"]
    assert row["case"] not in seen[fold]
    assert float(row["dsc"]) == 0.5 + fold / 10
  summary = json.loads((run.workdir / "evaluation" / "summary.json").read_text())
  assert summary["cases"] == 10
  assert summary["classes"]["pancreas"]["dsc"]["mean"] == pytest.approx(0.7)
  assert [fold["dsc"]["pancreas"] for fold in summary["folds"]] == [0.5, 0.6, 0.7, 0.8, 0.9]
  out = capsys.readouterr().out
  assert "folds: 0.500, 0.600, 0.700, 0.800, 0.900" in out
  # Of a fold that has two cases of one score each no order is known, of all there is.
  assert summary["quality"]["pancreas"]["spearman"] == pytest.approx(1)
  assert "pancreas: expected against true DSC: Spearman's rho 1.000" in out
  for number in range(5):  # each is an ordinary run
    folder = run.workdir / f"fold_{number}"
    assert load_config(folder / "config.json") == with_keys(run.config, {"data.fold": number})
    assert json.loads((folder / "run.json").read_text())["exit"] == "done"
  assert json.loads((run.workdir / "run.json").read_text())["exit"] == "done"


def test_a_killed_run_goes_on_in_the_fold_that_it_was_in(run, capsys):
  run.stop.at = 2
  with pytest.raises(Interrupted):
    train_run(run.config, run.workdir)
  assert not (run.workdir / "evaluation").exists()
  with pytest.raises(UserError, match=r"fold_3: is not trained yet; finish "):
    expand_fold_runs([run.workdir])
  run.stop.at = None
  run.asked.clear()
  train_run(run.config, run.workdir)
  assert [fold for fold, _ in run.asked] == [2, 3, 4]
  assert "fold 1 of 5: is finished" in capsys.readouterr().out
  assert len(_rows(run.workdir)) == 10
  # Nothing is left to do, but where more epochs are asked for there is.
  train_run(run.config, run.workdir)
  assert len(run.asked) == 3
  train_run(with_keys(run.config, {"train.epochs": 9}), run.workdir)
  assert [fold for fold, _ in run.asked[3:]] == [0, 1, 2, 3, 4]


def test_folds_that_begin_later_are_those_of_the_first_start(run):
  run.stop.at = 0
  with pytest.raises(Interrupted):
    train_run(run.config, run.workdir)
  add_case(run.data, "new")
  run.stop.at = None
  before = _files(run.workdir)
  with pytest.raises(UserError, match=r"new, and in no part of the run: new.*accept_changes=true"):
    train_run(run.config, run.workdir)
  assert _files(run.workdir) == before
  train_run(with_keys(run.config, {"data.accept_changes": True}), run.workdir)
  assert sorted(row["case"] for row in _rows(run.workdir)) == [*IDS]
  assert {case for _, ids in run.asked for case in ids} == {*IDS}
  train_run(run.config, run.workdir)  # what was accepted is known


def test_another_config_is_refused_before_anything_is_written(run):
  train_run(run.config, run.workdir)
  before = _files(run.workdir)
  for key, value in (("seed", 3), ("data.fold", 0)):
    with pytest.raises(UserError, match=rf"a run of another config \({key}: "):
      train_run(with_keys(run.config, {key: value}), run.workdir)
  assert _files(run.workdir) == before


def test_folds_that_were_trained_one_by_one_do_not_begin_a_run_around_them(run):
  for number in (0, 1):
    train_run(with_keys(run.config, {"data.fold": number}), run.workdir / f"fold_{number}")
  train_run(with_keys(run.config, {"data.fold": 2}), run.workdir)
  assert [fold for fold, _ in run.asked] == [0, 1, 2]
  assert load_config(run.workdir / "config.json").data.fold == 2


def test_a_run_to_start_from_that_is_missing_is_refused_before_anything_is_written(
  run, monkeypatch
):
  config = with_keys(run.config, {"init.workdir": "nowhere"})
  with pytest.raises(UserError, match=r"nowhere/config\.json: not found"):
    train_run(config, run.workdir)
  assert not run.workdir.exists()
  # Where all folds have begun, it is no longer needed.
  train_run(run.config, run.workdir)
  monkeypatch.setattr(train_folds, "open_starting_run", None)
  train_run(run.config, run.workdir)


def test_a_list_of_one_fold_is_refused_before_anything_is_written(run):
  config = with_keys(run.config, {"data.folds": "one_scan"})
  for part in ("imagesTr", "labelsTr"):
    (run.data / part / "a.nii.gz").rename(run.data / part / "scan.nii.gz")
  with pytest.raises(UserError, match=r"config\.data\.fold=all: the list 'one_scan' has one fold"):
    train_run(config, run.workdir)
  assert not run.workdir.exists()


def test_a_run_of_all_folds_is_opened_as_the_mean_of_them(run, monkeypatch, capsys):
  train_run(run.config, run.workdir)
  opened = []

  def open_one(folder):
    opened.append(folder.name)
    return LoadedRun(load_config(folder / "config.json"), ("pancreas",), None, 3)

  monkeypatch.setattr(open_ensemble, "open_run_or_stages", open_one)
  open_ensemble.open_ensemble([run.workdir])
  assert opened == [f"fold_{number}" for number in range(5)]
  assert "an ensemble of 5 runs" in capsys.readouterr().out
  with pytest.raises(UserError, match=r"a run of all folds; name one of them, such as .*/fold_0$"):
    load_best(run.workdir)


def test_scores_that_cannot_be_pooled_are_refused(run):
  train_run(run.config, run.workdir)
  with pytest.raises(UserError, match=r"--workdir=.*fold_0 --part=validation first"):
    pool_scores(run.workdir, "validation")
  first, second = (run.workdir / f"fold_{number}" / "evaluation" for number in (0, 1))
  rows = {"a": {"pancreas": {**_score(1), "nsd_1mm": 0.5}}}
  write_scores(rows, second)
  with pytest.raises(UserError, match=r"fold_1: was scored with scores .*nsd_1mm"):
    pool_scores(run.workdir)
  for folder in (first, second):
    write_scores({"a": {"pancreas": _score(1)}}, folder)
  with pytest.raises(UserError, match=r"a is a test case of folds 0 and 1, and pooled"):
    pool_scores(run.workdir)


def test_parts_with_each_case_in_one_fold_can_be_pooled(tmp_path):
  (tmp_path / "folds.json").write_text(json.dumps({"folds": by_hash(IDS)}))
  for part in ("validation", "test"):
    check_pooling(tmp_path, part)
  with pytest.raises(UserError, match=rf"folds 0 and 1, .*--workdir={tmp_path}/fold_0 --part=tr"):
    check_pooling(tmp_path, "training")


def test_the_page_has_all_cases_with_their_folds(run, monkeypatch):
  train_run(run.config, run.workdir)
  monkeypatch.setattr("attn_unet_jax.workflows.run_facts.count_parameters", lambda _: 5)
  header = "epoch,train_seg_loss,validation_seg_loss,test_seg_loss,train_seconds,"
  header += "validation_seconds,test_seconds,learning_rate,validation_dsc\n"
  for number in range(5):
    (run.workdir / f"fold_{number}" / "metrics.csv").write_text(
      header + f"1,.5,,,1,,,1e-3,.{number}\n"
    )
  text = report_run(run.workdir).read_text()
  assert "10 in 5 folds" in text
  assert '<th scope="col">fold</th>' in text
  (data,) = [line for line in text.splitlines() if 'id="data"' in line]
  data = json.loads(data.partition(">")[2].removesuffix("</script>"))
  (panel,) = [one for one in data["panels"] if one["title"] == "DSC of the validation cases"]
  assert [curve["name"] for curve in panel["curves"]] == [f"fold_{number}" for number in range(5)]
  assert panel["curves"][3]["points"] == [[1, 0.3]]
  assert "fold" not in [spread["title"] for spread in data["spreads"]]


def test_pooled_scores_are_removed_while_a_fold_is_scored_and_come_back(run):
  train_run(run.config, run.workdir)
  names = {path.name for path in (run.workdir / "evaluation").iterdir()}
  remove_pooled(run.workdir, "validation")
  assert {path.name for path in (run.workdir / "evaluation").iterdir()} == names
  remove_pooled(run.workdir, "test")
  assert not list((run.workdir / "evaluation").iterdir())
  assert (run.workdir / "fold_0" / "evaluation" / "cases.csv").exists()
  run.asked.clear()
  train_run(run.config, run.workdir)
  assert {path.name for path in (run.workdir / "evaluation").iterdir()} == names
  assert not run.asked  # no fold was trained again


def test_cases_of_every_fold_count_as_seen(run):
  train_run(run.config, run.workdir)
  assert set(list_seen_cases(run.config, run.workdir / "folds.json")) == {*IDS}


@pytest.mark.slow
def test_two_folds_are_trained_scored_and_averaged(config, phantoms, tmp_path, monkeypatch):
  """From data to probabilities, with the smallest network there is."""
  for module in (train, load_run):
    monkeypatch.setattr(module, "build_run_network", lambda *_: Tiny())
  monkeypatch.setattr("attn_unet_jax.workflows.run_facts.count_parameters", lambda _: 5)
  ids = open_fold(with_keys(config, {"data.dir": str(phantoms)}).data).dataset.ids
  listing = [
    {"training": [ids[0]], "validation": [ids[1]], "test": [ids[2]]},
    {"training": [ids[2]], "validation": [ids[1]], "test": [ids[0]]},
  ]
  path = tmp_path / "list.json"
  path.write_text(json.dumps({"folds": listing}))
  keys = {"data.dir": str(phantoms), "data.folds": str(path), "data.fold": "all"}
  keys |= {"train.epochs": 1, "train.steps_per_epoch": 4}
  workdir = tmp_path / "run"
  train_run(with_keys(config, keys), workdir)
  assert [row["case"] for row in _rows(workdir)] == [ids[2], ids[0]]
  assert (workdir / "fold_1" / "report.html").exists()
  members = [open_ensemble.open_ensemble([workdir / f"fold_{number}"]) for number in (0, 1)]
  volume = Volume(np.full((16, 16, 16), 100, np.int16), np.diag([10.0, 10, 10, 1]))
  answers = [member.system.predict(volume) for member in members]
  assert not np.array_equal(*answers)
  joined = open_ensemble.open_ensemble([workdir]).system.predict(volume)
  np.testing.assert_allclose(joined, np.mean(answers, axis=0), atol=1e-6)
