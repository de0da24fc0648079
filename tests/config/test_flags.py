"""The keys of a config on a command line, and the other names that people have for them."""

import pytest
from absl import flags

from attn_unet_jax.config import flags as config_flags
from attn_unet_jax.config.flags import ConfigFlags
from attn_unet_jax.config.schema import list_keys
from attn_unet_jax.config.stored import to_json
from attn_unet_jax.runtime.errors import UserError
from tests.configs import small_config, with_keys


@pytest.fixture
def absl_flags(monkeypatch):
  """The flags of a command, apart from those of this process."""
  own = flags.FlagValues()
  monkeypatch.setattr(config_flags.flags, "FLAGS", own)
  flags.DEFINE_string("config", None, "The experiment.", flag_values=own)
  flags.DEFINE_string("workdir", None, "The run.", flag_values=own)
  return own


def _read(absl_flags, *arguments):
  keys = ConfigFlags()
  absl_flags(["command", *keys.take(arguments)])
  return keys.read()


def test_keys_and_other_flags_are_given_in_any_order(absl_flags, capsys):
  config = _read(
    absl_flags, "--config.seed=3", "--config", "pancreas:phantom", "--config.train.epochs", "4",
    "--workdir=a",
  )  # fmt: skip
  assert (config.seed, config.train.epochs, config.data.dataset) == (3, 4, "phantom_ct/demo")
  assert absl_flags.workdir == "a"
  assert capsys.readouterr().out == ""


def test_what_is_dropped_of_the_experiment_is_told(absl_flags, capsys):
  _read(absl_flags, "--config=pancreas:phantom", "--config.model.name=vnet")
  assert "model.feature_scale=8.0 no longer counts" in capsys.readouterr().out


def test_a_bad_value_is_refused(absl_flags):
  with pytest.raises(UserError, match=r"^config\.train\.epochs=0: must be above 0$"):
    _read(absl_flags, "--config=pancreas:phantom", "--config.train.epochs=0")


def test_the_name_that_another_command_has_for_a_key_is_taken(absl_flags, capsys):
  config = _read(absl_flags, "--config=pancreas:phantom", "--data_dir=elsewhere")
  assert config.data.dir == "elsewhere"
  assert "--data_dir is called --config.data.dir here" in capsys.readouterr().out


def test_doubts_are_accepted_by_the_name_that_every_command_has(absl_flags, capsys):
  config = _read(absl_flags, "--config=pancreas:phantom", "--accept=rescale,hounsfield")
  assert config.data.accept == "rescale,hounsfield"
  assert config.data.acceptance == {"hounsfield", "rescale"}
  assert capsys.readouterr().out == ""
  with pytest.raises(UserError, match=r"config\.data\.accept='all': must be names out of hounsf"):
    _read(absl_flags, "--config=pancreas:phantom", "--accept=all")


def test_a_flag_of_the_commands_own_is_left_to_it(absl_flags):
  flags.DEFINE_string("labels", None, "Of masks.", flag_values=absl_flags)
  config = _read(absl_flags, "--config=pancreas:phantom", "--labels=liver=1")
  assert (config.data.labels, absl_flags.labels) == ("pancreas", "liver=1")


@pytest.mark.parametrize(
  ("flag", "said"),
  [
    ("lr", "write --config.optimizer.learning_rate"),
    ("learning_rate", "write --config.optimizer.learning_rate"),
    ("data.folder", "write --config.data.folder"),
    ("epochs", "write --config.train.epochs"),
    ("nonsense", ""),
  ],
)
def test_an_unknown_flag_that_means_a_key_is_explained(flag, said):
  assert ConfigFlags().explain(flag) == said


def test_help_lists_every_key():
  described = ConfigFlags().describe()
  missing = [key.name for key in list_keys() if key.name not in described]
  assert missing == []


def test_a_run_stands_for_the_config_that_is_not_given(absl_flags, tmp_path):
  """With the keys of the command line on top; a given config counts as ever."""
  stored = small_config(**{"train.epochs": 7, "data.labels": "liver"})
  (tmp_path / "config.json").write_text(to_json(stored))

  def read(*arguments):
    keys = ConfigFlags()
    absl_flags(["command", *keys.take(arguments)])
    return keys.read(run=tmp_path)

  assert read() == stored
  assert read("--config.train.epochs=9") == with_keys(stored, {"train.epochs": 9})
  with pytest.raises(UserError, match=r"unknown config key config\.train\.epoch; did you mean"):
    read("--config.train.epoch=9")
  with pytest.raises(UserError, match=r"config\.train\.epochs=0: must be above 0"):
    read("--config.train.epochs=0")
  with pytest.raises(UserError, match=r"config\.stages\.inner_folds=3: only stages\.count=2 reads"):
    read("--config.stages.inner_folds=3")
  assert read("--config=pancreas:phantom").data.dataset == "phantom_ct/demo"


def test_without_config_and_run_the_flag_is_missing(absl_flags, tmp_path):
  absl_flags(["command"])
  with pytest.raises(UserError, match=f"--config is missing, and {tmp_path} is no run to go on"):
    ConfigFlags().read(run=tmp_path)
  (tmp_path / "config.json").write_text("[]")
  with pytest.raises(UserError, match=r"config\.json: not a config of this program"):
    ConfigFlags().read(run=tmp_path)
