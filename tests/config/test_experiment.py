"""Experiment files: found by path and by name, loaded, and refused in one line."""

import json
import os
import subprocess
import sys

import pytest

from attn_unet_jax.config.experiment import find_experiment, list_experiments, load_experiment
from attn_unet_jax.config.overrides import apply_overrides
from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.config.stored import to_json
from attn_unet_jax.runtime.errors import UserError
from experiments.pancreas import get_config
from tests.conftest import ROOT

NAMES = [
  "dense_vnet",
  "dual_attention",
  "hnn",
  "pancreas",
  "pancreas_1mm",
  "unet3d",
  "vnet",
]


def test_the_packages_experiments_are_listed():
  assert list_experiments() == NAMES


@pytest.mark.parametrize(
  "text", ["{}", "{}:phantom", "experiments/{}.py", "experiments/{}.py:phantom"]
)
@pytest.mark.parametrize("name", NAMES)
def test_experiments_are_found_from_another_folder(monkeypatch, tmp_path, name, text):
  here = resolve_draft(load_experiment(text.format(name)), data=False)
  monkeypatch.chdir(tmp_path)
  assert resolve_draft(load_experiment(text.format(name)), data=False) == here


ELSEWHERE = """
import sys
sys.path.insert(0, {root!r})
import attn_unet_jax
sys.path.remove({root!r})
from attn_unet_jax.config.experiment import load_experiment
print(load_experiment("vnet:phantom").model.name)
"""


def test_an_experiment_imports_another_where_the_checkout_is_not_on_the_path(tmp_path):
  """As an installed package has them: `experiments` is no package of its own there."""
  env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
  code = ELSEWHERE.format(root=str(ROOT))
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
  )
  assert (done.stdout, done.stderr) == ("vnet\n", "")


def test_a_file_goes_before_a_name(monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "vnet.py").write_text(
    "from attn_unet_jax.config import default\n"
    "def get_config():\n  config = default()\n  config.seed = 7\n  return config\n"
  )
  assert load_experiment("vnet.py").seed == 7
  assert load_experiment("vnet").seed == 0


@pytest.mark.parametrize("text", ["none.py", "none", "experiments", "__init__", "vnet.txt"])
def test_what_is_not_there_is_told_what_is(monkeypatch, tmp_path, text):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError) as refused:
    find_experiment(text)
  said = str(refused.value)
  assert said.startswith(f"--config={text}: No such file or directory; ")
  assert all(name in said for name in NAMES)


@pytest.mark.parametrize(
  ("content", "complaint"),
  [
    ("def get_config(:", "SyntaxError"),
    ("import nowhere", "No module named 'nowhere'"),
    ("def get_config():\n  raise RuntimeError('oops')", "RuntimeError: oops"),
    ("x = 1", "get_config"),
    ("def get_config():\n  return 3", "get_config returns int"),
    (
      "import attn_unet_jax.config as c\ndef get_config():\n  c.default().train.epoch = 3",
      "epochs",
    ),
    (
      "from attn_unet_jax.runtime.errors import UserError\n"
      "def get_config():\n  raise UserError('say which')",
      "^say which$",
    ),
  ],
)
def test_a_file_that_does_not_load_is_refused_in_one_line(tmp_path, content, complaint):
  path = tmp_path / "mine.py"
  path.write_text(content)
  with pytest.raises(UserError, match=complaint) as refused:
    load_experiment(str(path))
  assert "\n" not in str(refused.value)


def test_a_draft_that_does_not_start_from_the_defaults_is_refused(tmp_path):
  path = tmp_path / "mine.py"
  path.write_text("import ml_collections\nget_config = ml_collections.ConfigDict")
  draft = load_experiment(str(path))
  for use in (resolve_draft, lambda draft: apply_overrides(draft, {})):
    with pytest.raises(UserError, match=r"start from default\(\)"):
      use(draft)


@pytest.mark.parametrize("variant", ["", "paper_loss", "phantom", "one_scan"])
def test_experiments_are_valid(variant):
  config = resolve_draft(get_config(variant), data=False)
  json.loads(to_json(config))


def test_the_default_experiment_is_the_papers_recipe():
  config = resolve_draft(get_config(), data=False)
  assert config.data.blur_mm == 0.75
  assert config.data.spacing_mm == 2.0
  assert config.data.patch == (160, 160, 96)
  assert config.data.normalisation == "zscore"
  assert (config.optimizer.learning_rate, config.optimizer.weight_decay) == (1e-4, 1e-6)
  assert config.loss.weights == {"dice": 1.0, "bce": 1.0}
  paper_loss = resolve_draft(get_config("paper_loss"), data=False)
  assert paper_loss.loss.weights == {"reference_dice": 1.0}


def test_an_unknown_variant_is_refused():
  with pytest.raises(UserError, match="no such variant"):
    get_config("nope")
  with pytest.raises(UserError, match="no such variant"):
    load_experiment("pancreas:nope")


def test_flags_change_an_experiment_and_not_the_next_one_that_is_loaded():
  draft = load_experiment("pancreas:phantom")
  apply_overrides(draft, {"train.epochs": "3"})
  assert draft.train.epochs == 3
  assert load_experiment("pancreas:phantom").train.epochs != 3
