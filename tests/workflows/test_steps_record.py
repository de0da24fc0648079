"""What a run chose after its network is read back, for the checkpoint that it was chosen for."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from attn_unet_jax.evaluation.choose_steps import ChosenSteps
from attn_unet_jax.inference.options import InferenceOptions
from attn_unet_jax.inference.postprocess import UNCHANGED, Postprocessing
from attn_unet_jax.inference.quality import QualityModel
from attn_unet_jax.labels import parse_mapping
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.workflows import choose_run_steps as workflow
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.quality_record import read_quality
from attn_unet_jax.workflows.steps_record import read_record, read_steps, write_record
from tests.configs import with_keys
from tests.inference.test_quality import _cube as believe_cube

STEPS = Postprocessing(threshold=0.4, smallest_ml=0.5, fill_holes=True)
OPTIONS = InferenceOptions()
SCORES = {"dsc": 0.75, "volume_ml": 1.0, "reference_volume_ml": 1.0}


def test_what_is_written_is_read(tmp_path):
  write_record(tmp_path, ChosenSteps(STEPS, 0.7, 0.75, 4), 120)
  assert read_record(tmp_path) == (STEPS, 120)
  assert read_steps(tmp_path, 120, OPTIONS) == STEPS
  said = json.loads((tmp_path / "postprocess.json").read_text())
  assert said["validation"]["gain"] == pytest.approx(0.05)
  assert said["validation"]["cases"] == 4


def test_a_run_without_a_record_predicts_as_before(tmp_path):
  assert read_steps(tmp_path, 120, OPTIONS) == UNCHANGED


def test_steps_are_those_of_their_checkpoint_and_are_taken_if_wanted(tmp_path):
  write_record(tmp_path, ChosenSteps(STEPS, 0.7, 0.75, 4), 120)
  assert read_steps(tmp_path, 240, OPTIONS) == UNCHANGED
  without = dataclasses.replace(OPTIONS, postprocess="none")
  assert read_steps(tmp_path, 120, without) == UNCHANGED


@pytest.mark.parametrize(
  "text",
  [
    "{",
    "[]",
    '{"format": 2}',
    '{"format": 1, "checkpoint_step": 1}',
    '{"format": 1, "checkpoint_step": 1, "steps": {"threshold": 0.5, "largest": 1, '
    '"smallest_ml": 0, "fill_holes": false}}',
    '{"format": 1, "checkpoint_step": 1, "steps": {"threshold": 2, "largest": true, '
    '"smallest_ml": 0, "fill_holes": false}}',
    '{"format": 1, "checkpoint_step": 1, "steps": {"threshold": 0.5, "largest": true, '
    '"smallest_ml": Infinity, "fill_holes": false}}',
  ],
)
def test_a_damaged_record_is_refused_with_the_way_out(tmp_path, text):
  (tmp_path / "postprocess.json").write_text(text)
  with pytest.raises(UserError, match=r"postprocess\.json: .*; remove it to predict without"):
    read_steps(tmp_path, 1, OPTIONS)


@pytest.fixture
def chosen(config, monkeypatch, tmp_path):
  """Chooses for a checkpoint and returns the run; `calls` has the cases that were asked."""
  calls = []

  def choose(fold, ids, system, recipe, observe):
    calls.append(ids)
    # Of one class or more the last one is a cube.
    found = believe_cube(1.0)
    values = np.pad(found.values, [(0, 0)] * 3 + [(0, len(fold.mapping.classes) - 1)])
    values[..., [1, -1]] = values[..., [-1, 1]]
    for _ in ids:
      observe(found._replace(values=values))
    return ChosenSteps(STEPS, 0.7, 0.75, len(ids), [{"pancreas": SCORES}] * len(ids))

  monkeypatch.setattr(workflow, "choose_steps", choose)

  def run(step, ids=("a", "b", "c"), labels="pancreas=1", **keys):
    split, mapping = SimpleNamespace(validation=ids, test=("t",)), parse_mapping(labels, None)
    fold = SimpleNamespace(split=split, mapping=mapping)
    changed = with_keys(config, {f"inference.{key}": value for key, value in keys.items()})
    trained = LoadedRun(changed, mapping.classes, None, step)
    return workflow.choose_run_steps(trained, fold, tmp_path).postprocessing

  run.calls = calls
  return run


def test_steps_are_chosen_once_for_a_checkpoint_on_the_validation_cases(chosen, capsys):
  assert [chosen(120), chosen(120), chosen(240)] == [STEPS] * 3
  assert chosen.calls == [("a", "b", "c")] * 2
  said = "chosen: threshold 0.4, components from 0.5 ml, holes filled"
  assert f"{said} (validation DSC 0.700 to 0.750)" in capsys.readouterr().out


def test_the_same_look_at_the_validation_cases_teaches_the_quality(chosen, tmp_path):
  chosen(120)
  model = read_quality(tmp_path, ["pancreas"], 120)["pancreas"]
  assert (model.intercept, model.cases) == (-0.25, 3)  # certain of 1, and 0.75 in truth
  assert model.threshold == 0.75


def test_of_a_class_that_the_data_does_not_label_no_quality_is_learnt(chosen, tmp_path):
  """The liver is first in the network, and no case has a score of it."""
  chosen(120, labels="liver=none,pancreas=1")
  models = read_quality(tmp_path, ["liver", "pancreas"], 120)
  assert models["liver"] == QualityModel()
  # Certain of 1 in the pancreas's own place, where the liver's probabilities expect 0.
  assert (models["pancreas"].intercept, models["pancreas"].cases) == (-0.25, 3)


def test_nothing_is_chosen_where_none_is_wanted_or_cases_are_few(chosen, tmp_path):
  assert chosen(120, postprocess="none") == UNCHANGED
  assert chosen(120, ids=("a", "b")) == UNCHANGED
  assert not chosen.calls
  assert not list(tmp_path.iterdir())
