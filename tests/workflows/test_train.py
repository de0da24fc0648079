"""What an ordinary run is validated on, and with what."""

import math
from types import SimpleNamespace

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.evaluation.overlap import MeanScore
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
