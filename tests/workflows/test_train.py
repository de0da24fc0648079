"""What an ordinary run is validated on, and with what."""

from types import SimpleNamespace

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.workflows import train as workflow
from tests.configs import with_keys


def test_states_are_validated_on_the_validation_cases_by_what_they_predict_with(
  config, phantoms, tmp_path, monkeypatch
):
  """Never on the test cases; by the averages, where they are kept."""
  config = with_keys(config, {"data.dir": str(phantoms)})
  state, calls = SimpleNamespace(variables="averages"), []

  def train(config, module, load, validate, *_):
    calls.append(validate(state))

  def mean_dsc(fold, ids, system, config):
    return ids, system.variables

  monkeypatch.setattr(workflow, "train_network", train)
  monkeypatch.setattr(workflow, "mean_dsc", mean_dsc)
  fold = open_fold(config.data)
  workflow.train_and_test(config, fold, tmp_path / "run", test=False)
  assert calls == [(fold.split.validation, "averages")]
  assert fold.split.validation != fold.split.test
