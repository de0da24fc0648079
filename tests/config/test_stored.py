"""A run's `config.json`: read back equal, of older formats too, and refused with its name."""

import json
import shutil
from pathlib import Path

import pytest

from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.experiment import load_experiment
from attn_unet_jax.config.overrides import apply_overrides
from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.config.schema import RunConfig, flatten
from attn_unet_jax.config.stored import EARLIER_DEFAULTS, find_differences, load_config, to_json
from attn_unet_jax.losses.options import LOSSES
from attn_unet_jax.models.options import NETWORKS
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.options import OPTIMIZERS

OLD = Path(__file__).parent / "old_configs"  # of format 1, which runs of three experiments wrote
SIDES = {"loss.dice": 0.0, "loss.bce": 0.0, "loss.side_bce": 1.0}  # the only loss of hnn


@pytest.fixture
def path(tmp_path):
  return tmp_path / "config.json"


def test_a_stored_config_is_read_back_equal(path):
  config = replace_keys(RunConfig(), {"model.gate_bias_init": 3.0})
  path.write_text(to_json(config))
  stored = load_config(path)
  assert stored == config
  assert isinstance(stored.data.patch, tuple)
  other = replace_keys(config, {"data.fold": 2})
  assert find_differences(stored, other) == {"data.fold": (0, 2)}
  assert find_differences(stored, config) == {}


@pytest.mark.parametrize(
  "changes",
  [
    *(pytest.param({"model.name": name}, id=name) for name in NETWORKS if name != "hnn"),
    pytest.param({"model.name": "hnn", **SIDES}, id="hnn"),
    *(pytest.param({"optimizer.name": name}, id=name) for name in OPTIMIZERS),
    *(pytest.param({f"loss.{name}": 0.5}, id=name) for name in LOSSES if name != "side_bce"),
    pytest.param({"model.name": "dense_vnet", "model.dilation_rates": ((1, 2), (3,))}, id="nested"),
    pytest.param({"optimizer.layer_rates": (("gating", 0.1),)}, id="pairs"),
    pytest.param({"augment.extra": ("gamma",)}, id="names"),
  ],
)
def test_every_choice_is_read_back_equal(path, changes):
  config = replace_keys(RunConfig(), changes)
  path.write_text(to_json(config))
  assert load_config(path) == config


def test_a_file_holds_what_its_run_reads(path):
  stored = json.loads(to_json(replace_keys(RunConfig(), {"model.name": "vnet"})))
  assert stored["model"].keys() == {"name", "feature_scale", "remat", "dtype", "conv"}
  assert "momentum" not in stored["optimizer"]
  assert stored["seed"] == 0


def test_keys_of_one_network_alone_differ_from_nothing():
  unet = replace_keys(RunConfig(), {"model.name": "unet"})
  found = find_differences(RunConfig(), unet)
  assert found["model.name"] == ("attention_unet", "unet")
  assert found["model.gates"] == (2, None)
  assert all(key.startswith("model.") for key in found)


@pytest.mark.parametrize(
  ("name", "experiment"), [("attention_unet", "pancreas"), ("vnet", "vnet"), ("hnn", "hnn")]
)
def test_an_old_file_is_the_config_that_its_flags_make_today(path, name, experiment):
  flags = {"epochs": "2", "steps_per_epoch": "3", "validate_every": "100", "save_every": "1"}
  draft = load_experiment(f"{experiment}:phantom")
  # What is another thing by default now is read as what the run was trained with.
  apply_overrides(draft, {f"train.{key}": text for key, text in flags.items()} | EARLIER_DEFAULTS)
  old = load_config(OLD / f"{name}.json")
  assert old == resolve_draft(draft)
  assert old.model.name == name
  path.write_text(to_json(old))
  assert load_config(path) == old


def _old(path, changes):
  """A file of the old format with some keys changed; None takes one out."""
  nested = json.loads((OLD / "attention_unet.json").read_text())
  for key, value in changes.items():
    *sections, name = key.split(".")
    section = nested[sections[0]] if sections else nested
    if value is None:
      del section[name]
    else:
      section[name] = value
  path.write_text(json.dumps(nested))
  return path


def test_what_an_old_run_did_not_read_is_left_out_whatever_it_is(path):
  changes = {"model.trunk_norm": "batch", "optimizer.momentum": 7.0, "optimizer.decay_epochs": 0}
  assert load_config(_old(path, changes)) == load_config(OLD / "attention_unet.json")


def test_labels_of_an_older_run_are_resampled_as_they_were(path):
  for said in (None, "nearest"):
    old = load_config(_old(path, {"data.label_resampling": said}))
    assert old.data.label_resampling == "nearest"
  assert RunConfig().data.label_resampling == "balanced"


def test_what_an_older_run_did_not_know_has_its_default(path):
  older = load_config(_old(path, {"stages": None, "train.accumulate": None, "model.remat": None}))
  assert older == load_config(OLD / "attention_unet.json")


@pytest.mark.parametrize(
  ("changes", "complaint"),
  [
    ({"model.name": "foo"}, "config.model.name='foo': must be one of"),
    ({"data.patch": [16]}, r"config.data.patch=\(16,\): must be 3 values"),
    ({"data.spacing_mm": 0}, "config.data.spacing_mm=0: must be 0.0001 to 100 mm"),
    ({"train.accumulate": 3}, "config.train.accumulate=3: must be a divisor of"),
    ({"data.colour": 3}, r"unknown keys \['data.colour'\]; written by another version"),
    ({"format": 3}, "format 3 of another version"),
  ],
)
def test_an_old_file_that_is_not_allowed_is_refused_with_its_name(path, changes, complaint):
  with pytest.raises(UserError, match=complaint) as error:
    load_config(_old(path, changes))
  assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
  "content", ["", "[1]", '{"data": 3}', '{"other": {"a": 1}}', 100_000 * "["]
)
def test_a_broken_stored_config_is_refused(path, content):
  path.write_text(content)
  with pytest.raises(UserError, match=r"config\.json"):
    load_config(path)


@pytest.mark.parametrize(
  ("key", "value", "complaint"),
  [
    ("model.name", "foo", "config.model.name='foo': must be one of"),
    ("data.patch", [16], r"config.data.patch=\(16,\): must be 3 values"),
    ("data.spacing_mm", 0, "config.data.spacing_mm=0"),
    ("data.spacing_mm", 10**400, "must be finite"),
    ("inference.overlap", 1.5, "config.inference.overlap=1.5: must be at least 0, below 1"),
    ("inference.class_weights", [1, 2, 3], r"class_weights=\(1, 2, 3\): must be \(\) or 2"),
    ("model.trunk_norm", "group", "config.model.trunk_norm: attention_unet does not read it"),
    ("loss_options.focal_gamma", 1.0, "config.loss_options.focal_gamma: bce . dice does not read"),
  ],
)
def test_a_stored_value_that_is_not_allowed_is_refused_with_its_file(path, key, value, complaint):
  stored = json.loads(to_json(RunConfig()))
  section, name = key.split(".")
  stored.setdefault(section, {})[name] = value
  path.write_text(json.dumps(stored))
  with pytest.raises(UserError, match=complaint) as error:
    load_config(path)
  assert str(error.value).startswith(f"{path}: ")


def test_stored_class_weights_that_do_not_fit_are_refused(path):
  config = replace_keys(RunConfig(), {"loss.weighted_ce": 1.0})
  stored = json.loads(to_json(config))
  stored["loss_options"]["class_weights"] = [1, 2, 3]
  path.write_text(json.dumps(stored))
  with pytest.raises(UserError, match=r"class_weights=\(1, 2, 3\): must be \(\) or 2"):
    load_config(path)


def test_a_missing_stored_config_is_refused(path):
  with pytest.raises(UserError, match="not found"):
    load_config(path)


def test_a_config_that_may_not_be_read_is_not_called_foreign(path, unreadable):
  shutil.copy(OLD / "vnet.json", path)
  unreadable(path)
  with pytest.raises(UserError, match=r"config\.json: cannot be read \(Permission denied\)"):
    load_config(path)


@pytest.mark.parametrize("name", ["attention_unet", "vnet", "hnn"])
def test_old_files_hold_the_keys_of_all_networks(name):
  """Else they would not test what became of them."""
  stored = json.loads((OLD / f"{name}.json").read_text())
  assert "format" not in stored
  assert {"gates", "trunk_norm", "prior_size", "padding"} <= stored["model"].keys()
  assert {"betas", "momentum", "decay_epochs"} <= stored["optimizer"].keys()
  assert flatten(load_config(OLD / f"{name}.json")).get("optimizer.momentum") is None
