"""What an ordinary run is validated on, and with what."""

import dataclasses
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.evaluation.overlap import MeanScore
from attn_unet_jax.inference.postprocess import Postprocessing
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows import train as workflow
from tests.configs import with_keys


def test_states_are_validated_on_the_validation_cases_by_what_they_predict_with(
  config, phantoms, tmp_path, monkeypatch
):
  """Never on the test cases; by the averages, where they are kept."""
  config = with_keys(config, {"data.dir": str(phantoms)})
  state, found, scores = SimpleNamespace(variables="averages"), [], []
  answers = [MeanScore(0.75, 2, 3), MeanScore(math.nan, 0, 3)]

  def train(config, module, load, validate, *_):
    scores.extend(validate(state) for _ in range(2))

  def mean_dsc(fold, ids, system, config):
    found.append((ids, system.variables))
    return answers.pop(0)

  monkeypatch.setattr(workflow, "train_network", train)
  monkeypatch.setattr(workflow, "mean_dsc", mean_dsc)
  fold = open_fold(config.data)
  workflow.train_and_test(config, fold, tmp_path / "run", test=False)
  assert found == 2 * [(fold.split.validation, "averages")]
  assert scores == [(0.75, 2, 3), (None, 0, 3)]
  assert fold.split.validation != fold.split.test


@pytest.mark.parametrize(
  ("key", "value", "complaint"),
  [
    ("augment.extra", ("math:gama",), r"extra='math:gama': the module math has no 'gama'"),
    ("loss.external", (("math:cos2", 1.0),), r"config\.loss='math:cos2': the module math has no"),
  ],
)
def test_what_the_user_names_is_imported_before_any_scan_is_read(config, key, value, complaint):
  with pytest.raises(UserError, match=complaint):
    workflow.check_training(with_keys(config, {key: value}), SimpleNamespace())


def test_the_test_takes_the_steps_that_the_validation_cases_chose(
  config, phantoms, tmp_path, monkeypatch
):
  found = []
  steps = Postprocessing(largest=True)

  def choose(trained, fold, workdir):
    return dataclasses.replace(trained, postprocessing=steps)

  best = SimpleNamespace(variables={}, classes=("pancreas",), step=6)
  monkeypatch.setattr(workflow, "train_network", lambda *_: None)
  monkeypatch.setattr(workflow, "load_best", lambda _: best)
  monkeypatch.setattr(workflow, "choose_run_steps", choose)
  monkeypatch.setattr(workflow, "evaluate_run", lambda trained, *_: found.append(trained))
  config = with_keys(config, {"data.dir": str(phantoms)})
  workflow.train_and_test(config, open_fold(config.data), tmp_path / "run")
  assert [(trained.postprocessing, trained.step) for trained in found] == [(steps, 6)]


def test_what_was_accepted_of_the_scans_stands_in_run_json(config, tmp_path, monkeypatch):
  values = np.random.default_rng(0).integers(0, 256, (20, 20, 20)).astype(np.uint8)
  for part, array in (("imagesTr", values), ("labelsTr", (values > 200).astype(np.uint8))):
    write_nifti(tmp_path / "data" / part / "scan.nii", Volume(array, np.diag([2.0, 2, 2, 1])))
  config = with_keys(
    config,
    {
      "data.dataset": "",
      "data.folder": str(tmp_path / "data"),
      "data.folds": "one_scan",
      "data.accept": "hounsfield",
    },
  )
  monkeypatch.setattr(
    workflow, "train_network", lambda config, module, load, *_: load("training")[0]
  )
  workflow.train_and_test(config, open_fold(config.data), tmp_path / "run", test=False)
  record, written = (
    json.loads((tmp_path / "run" / name).read_text()) for name in ("run.json", "config.json")
  )
  assert (record["accepted"]["reasons"], written["data"]["accept"]) == (
    ["hounsfield"],
    "hounsfield",
  )
  (finding,) = record["accepted"]["findings"]
  assert "scan.nii: values from 0 to 255 are no Hounsfield units" in finding
