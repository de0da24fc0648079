"""The model card says what the run's files say, and nothing else."""

import json

import pytest

from attn_unet_jax.config.stored import load_config, to_json
from attn_unet_jax.evaluation.choose_steps import ChosenSteps
from attn_unet_jax.evaluation.scoring import write_scores
from attn_unet_jax.inference.postprocess import Postprocessing
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.workflows.model_card import describe_model, write_card_after_training
from attn_unet_jax.workflows.run_facts import list_facts
from attn_unet_jax.workflows.steps_record import write_record
from tests.configs import with_keys


@pytest.fixture
def make(config, tmp_path, monkeypatch):
  """Writes the folder of a run with changed keys, without scores."""
  monkeypatch.setattr("attn_unet_jax.workflows.run_facts.count_parameters", lambda _: 1234567)

  def write(**keys):
    (tmp_path / "config.json").write_text(to_json(with_keys(config, keys)))
    fold = {"training": ["SECRET1"], "validation": ["SECRET2"], "test": ["SECRET3", "SECRET4"]}
    (tmp_path / "folds.json").write_text(json.dumps({"name": "own", "folds": [fold]}))
    (tmp_path / "run.json").write_text(json.dumps({"versions": {"jax": "9.8.7"}, "python": "3.x"}))
    return tmp_path

  return write


def _score(workdir):
  rows = {
    f"SECRET{case}": {"pancreas": {"dsc": dsc, "volume_ml": 1.0, "reference_volume_ml": 1.0}}
    for case, dsc in ((3, 0.5), (4, 0.75))
  }
  write_scores(rows, workdir / "evaluation", {"part": "test", "checkpoint_step": 6})


def test_a_card_has_data_recipe_scores_and_limits(make):
  workdir = make()
  _score(workdir)
  text = describe_model(workdir)
  for said in (
    "Segments pancreas on CT",
    "Not a medical device.",
    "phantoms, drawn by a program",
    "| cases | 1 training, 1 validation, 2 test |",
    "| parameters | 1,234,567 |",
    "| trained with | JAX 9.8.7, Python 3.x |",
    "| scored checkpoint | step 6 |",
    "| steps after the network | none |",
    "| licence of the data | drawn by this program",
    "Missed in 0 of 2 cases",
    "| dsc | 0.625 | 0.500 to 0.750 | 0.625 | 2 of 2 |",
  ):
    assert said in text
  assert "SECRET" not in text  # a case may be called after a patient


def test_a_card_has_the_steps_that_predict_takes_and_not_those_of_the_scores(make):
  workdir = make(**{"inference.postprocess": "validation"})
  write_record(workdir, ChosenSteps(Postprocessing(fill_holes=True), 0.5, 0.6, 4), 6)
  assert "| steps after the network | holes filled |" in describe_model(workdir)
  _score(workdir)  # as with --no_postprocess
  assert "| steps after the network | holes filled |" in describe_model(workdir)
  write_record(workdir, ChosenSteps(Postprocessing(fill_holes=True), 0.5, 0.6, 4), 3)
  assert "| steps after the network | none |" in describe_model(workdir)
  make(**{"data.fold": "all"})
  assert "| steps after the network | those that each fold chose |" in describe_model(workdir)


def test_a_card_without_scores_says_so_and_names_no_place(make, tmp_path):
  workdir = make(**{"data.dataset": "", "data.folder": str(tmp_path / "scans|a")})
  text = describe_model(workdir)
  assert "It has not been tested." in text
  assert "| data | scans\\|a |" in text
  assert str(tmp_path) not in text
  assert "not known to this program" in text
  assert "phantoms" not in text
  # Scores of other cases than the test's are not the run's.
  write_scores({"a": {"pancreas": {"dsc": 1.0, "volume_ml": 1.0, "reference_volume_ml": 1.0}}},
               workdir / "evaluation", {"part": "validation"})  # fmt: skip
  assert "It has not been tested." in describe_model(workdir)


def test_a_card_says_which_run_it_started_from(make, tmp_path):
  workdir = make()
  assert "started from" not in describe_model(workdir)
  init = {"workdir": str(tmp_path / "runs|1" / "before"), "checkpoint_step": 15}
  (workdir / "run.json").write_text(json.dumps({"init": init}))
  text = describe_model(workdir)
  assert "| started from | step 15 of before |" in text
  mean = {"mean_of": [init, {"workdir": "after", "checkpoint_step": 30}]}
  (workdir / "run.json").write_text(json.dumps({"init": mean}))
  told = "| started from | the mean of step 15 of before, step 30 of after |"
  assert told in describe_model(workdir)
  assert str(tmp_path) not in text


def test_a_card_knows_both_data_sets(make, tmp_path):
  workdir = make(**{"data.also": "painted_ct/maps", "data.also_share": 0.25})
  (workdir / "folds.json").write_text(json.dumps({"folds": [], "also": ["SECRET5", "SECRET6"]}))
  text = describe_model(workdir)
  said = "| second data set | painted_ct/maps, 2 training cases, 0.25 of the patches |"
  assert said in text
  assert "Its scans are phantoms" in text
  assert "Of its second data set, which it was trained on, the images were painted by" in text
  assert "| licence of the second data set | not known to this program" in text
  assert "SECRET" not in text


@pytest.mark.parametrize("is_there", [True, False])
def test_a_card_names_no_place_of_the_second_set(make, tmp_path, is_there):
  folder = tmp_path / "private" / "scans"
  if is_there:
    folder.mkdir(parents=True)
  workdir = make(**{"data.also": str(folder)})
  config = load_config(workdir / "config.json")
  listed = dict(list_facts(config, {}, workdir, {}))
  assert listed["second data set"].startswith(f"{folder}, an unknown number of training cases")
  text = describe_model(workdir)
  assert "| second data set | scans, " in text
  assert "private" not in text


def test_the_stages_of_a_run_have_cards_of_their_own(make, capsys):
  workdir = make(**{"stages.count": 2, "data.labels": "liver"})
  stage = workdir / "stage1"
  stage.mkdir()
  (stage / "config.json").write_text((workdir / "config.json").read_text())
  write_card_after_training(workdir)
  assert "liver" in (workdir / "MODEL_CARD.md").read_text()
  assert "liver" in (stage / "MODEL_CARD.md").read_text()
  assert f"model card: {workdir}/MODEL_CARD.md" in capsys.readouterr().out


def test_a_card_that_fails_is_said_and_ends_no_run(make, tmp_path, capsys):
  workdir = make()
  (workdir / "run.json").write_text("[")
  with pytest.raises(UserError, match=r"run\.json: not readable as JSON"):
    describe_model(workdir)
  write_card_after_training(workdir)
  assert capsys.readouterr().out.startswith("no model card (UserError: ")
  assert not (workdir / "MODEL_CARD.md").exists()
