import ast
import json
import math
import sys
from pathlib import Path

import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from attn_unet_jax.config import rules, schema
from attn_unet_jax.config.schema import default, flatten, validate
from attn_unet_jax.config.stored import difference, load, to_json
from attn_unet_jax.runtime.errors import UserError
from experiments.pancreas import get_config
from tests.conftest import ROOT


def _chains() -> set[str]:
  """Every `a.b.c` in code but the config's own; `**config.section` counts as its `items`."""
  chains, own = set(), {Path(module.__file__) for module in (schema, rules)}
  for folder in ("attn_unet_jax", "tfds_pancreas"):
    for path in (ROOT / folder).rglob("*.py"):
      nodes = [] if path in own else ast.walk(ast.parse(path.read_text()))
      for node in nodes:
        if isinstance(node, ast.Attribute):
          chains.add(ast.unparse(node))
        elif isinstance(node, ast.keyword) and node.arg is None:
          chains.add(ast.unparse(node.value) + ".items")
  return chains


CHAINS = _chains()


@pytest.mark.parametrize("key", flatten(default()))
def test_every_key_is_read_by_some_code(key):
  assert _is_read(key), f"nothing reads config.{key}"


def test_a_key_that_nothing_reads_would_be_found():
  assert not _is_read("data.unread")
  assert not _is_read("unread")


def _is_read(key: str) -> bool:
  section = key.rpartition(".")[0]
  chains = (f"config.{key}", f"config.{section}.items")
  return (bool(section) and key in CHAINS) or any(chain.endswith(chains) for chain in CHAINS)


@pytest.mark.parametrize("key", flatten(default()))
def test_every_key_is_explained(key):
  source = Path(schema.__file__).read_text()
  line = next(line for line in source.splitlines() if f"config.{key} = " in line)
  section = key.rpartition(".")[0]
  assert "#" in line or section == "optimizer" or key in ("train.epochs", "train.steps_per_epoch")


@pytest.mark.parametrize(("key", "value"), flatten(default()).items())
def test_every_key_is_a_flag(key, value, monkeypatch):
  given, parsed = _another(value), flags.FlagValues()
  arguments = ["command", "--config=tests/small.py", f"--config.{key}={given}"]
  monkeypatch.setattr(sys, "argv", arguments)  # where ml_collections looks for keys
  config_flags.DEFINE_config_file("config", flag_values=parsed)
  parsed(arguments)
  assert flatten(parsed.config) == flatten(default()) | {key: given}


def _another(value):
  """A value of the same type; what is allowed does not matter here."""
  if isinstance(value, tuple):
    return tuple(map(_another, value)) or (1.5, 2.5)
  if value is None:
    return 1.5
  return not value if isinstance(value, bool) else value + type(value)(1)


def test_an_unknown_key_fails():
  with pytest.raises(AttributeError, match="patc"):
    default().data.patc = 3


def test_a_stored_config_is_read_back_equal(tmp_path):
  config = default()
  config.model.gate_bias_init = 3.0
  (tmp_path / "config.json").write_text(to_json(config))
  stored = load(tmp_path / "config.json")
  assert flatten(stored) == flatten(config)
  assert isinstance(stored.data.patch, tuple)
  config.data.fold = 2
  assert difference(stored, config) == {"data.fold": (0, 2)}


@pytest.mark.parametrize(
  "content", ["", "[1]", '{"data": 3}', '{"other": {"a": 1}}', 100_000 * "["]
)
def test_a_broken_stored_config_is_refused(tmp_path, content):
  path = tmp_path / "config.json"
  path.write_text(content)
  with pytest.raises(UserError, match=r"config\.json"):
    load(path)


@pytest.mark.parametrize(
  ("key", "value", "complaint"),
  [
    ("model.name", "foo", "config.model.name='foo': must be one of"),
    ("data.patch", [16], r"config.data.patch=\(16,\): must be 3 values"),
    ("data.spacing_mm", 0, "config.data.spacing_mm=0"),
    ("data.spacing_mm", 10**400, "too large"),
    ("inference.overlap", 1.5, "config.inference.overlap=1.5: must be at least 0, below 1"),
    ("loss_options.class_weights", [1, 2, 3], r"class_weights=\(1, 2, 3\): must be \(\) or 2"),
  ],
)
def test_a_stored_value_that_is_not_allowed_is_refused_with_its_file(
  tmp_path, key, value, complaint
):
  stored = default().to_dict()
  section, name = key.split(".")
  stored[section][name] = value
  path = tmp_path / "config.json"
  path.write_text(json.dumps(stored))
  with pytest.raises(UserError, match=complaint) as error:
    load(path)
  assert str(error.value).startswith(f"{path}: ")


def test_a_missing_stored_config_is_refused(tmp_path):
  with pytest.raises(UserError, match="not found"):
    load(tmp_path / "config.json")


@pytest.mark.parametrize(
  ("key", "value", "complaint"),
  [
    ("model.name", "nonet", "one of"),
    ("data.spacing_mm", 0.0, "0.0001 to 100 mm"),
    ("data.spacing_mm", math.inf, "finite"),
    ("data.spacing_mm", None, "of type float"),
    ("data.blur_mm", math.inf, "finite"),
    ("optimizer.learning_rate", math.inf, "finite"),
    ("augment.rotate_deg", (math.nan, 0.0, 0.0), "finite"),
    ("augment.scale", (0.0, 0.0), "above 0"),
    ("loss.dice", math.nan, "finite"),
    ("loss.dice", -1.0, "at least 0"),
    ("model.remat", 99, "at most 5"),
    ("model.gate_bias_init", math.nan, "finite"),
    ("train.epochs", True, "of type int"),
    ("train.accumulate", 3, "a divisor of config.train.batch_size=2"),
    ("data.window_hu", (5.0, 5.0), "lower end below"),
    ("data.foreground_fraction", 1.5, "0 to 1"),
    ("inference.overlap", 1.0, "below 1"),
    ("data.patch", (48,), "3 values"),
    ("data.patch", (10**400, 48, 48), "finite"),
    ("data.patch", (48.0, 48.0, 48.0), "type int"),
    ("data.patch", ("a", 2, 3), "type int"),
    ("data.blur_mm", -1.0, "at least 0"),
    ("optimizer.betas", (1.5, 2.0), "below 1"),
    ("optimizer.decay_epochs", 0, "above 0"),
    ("model.feature_scale", 100.0, "at most 64"),
    ("augment.scale", (1.2, 0.8), "config.augment"),
    ("loss_options.class_weights", (1.0,), r"\(\) or 2 values"),
    ("loss_options.class_weights", (1.0, -1.0), r"\(\) or 2 values"),
    ("loss_options.class_weights", (0.0, 0.0), "not all 0"),
    ("loss_options.class_weights", ("a", "b"), r"\(\) or 2 values"),
    ("inference.class_weights", (1.0,), r"\(\) or 2 values"),
    ("inference.class_weights", (0.0, 1.0), r"\(\) or 2 values of at least 1e-09"),
    ("loss_options.focal_gamma", -1.0, "at least 0"),
    ("optimizer.momentum", 1.0, "below 1"),
    ("optimizer.layer_rates", ("gating", 0.1), "pairs of a regex and a factor"),
    ("optimizer.layer_rates", (("gating", -1.0),), "pairs of a regex and a factor"),
    ("optimizer.layer_rates", (("gating", math.inf),), "finite"),
    ("optimizer.layer_rates", (("(", 1.0),), "regular expressions"),
    ("init.freeze", "encoder", "empty without config.init.workdir"),
    ("model.dilation_rates", (1, 2), "tuples of whole numbers above 0"),
    ("model.dilation_rates", ((1, 0),), "tuples of whole numbers above 0"),
    ("model.channels_kept", 0.0, "above 0, at most 1"),
    ("augment.corner_scale", 1.0, "below 1"),
    ("loss.side_bce", 1.0, "only hnn has side outputs"),
    ("model.trunk_norm", "batch", "one of"),
    ("parallel.mode", "shard", "one of"),
    ("stages.count", 3, "one of"),
    ("stages.inner_folds", 1, "at least 2"),
    ("stages.superpixel_mm", 0.0, "above 0"),
    ("stages.foreground", (0.0, 1.0), "below 1"),
    ("parallel.data", -1, "at least 0"),
    ("parallel.space", 0, "above 0"),
    ("parallel.batch_norm", "none", "one of"),
    ("data.folder", "x", "give one of the two"),
  ],
)
def test_bad_values_are_refused_with_their_key(key, value, complaint):
  config = default()
  config.data.dataset = "phantom_ct/tiny"
  section, name = key.split(".")
  config[section][name] = value
  with pytest.raises(UserError, match=complaint) as error:
    validate(config)
  assert key.split(".")[1] in str(error.value) or section in str(error.value)


@pytest.mark.parametrize(
  ("key", "value", "complaint"),
  [
    ("labels", "liver,spleen", "one class in stages"),
    ("boxes", "boxes.json", "empty: stages find their own"),
    ("target", "boundary", "interior: stages set it"),
  ],
)
def test_what_stages_decide_themselves_is_refused(key, value, complaint):
  config = default()
  config.data.dataset, config.stages.count = "phantom_ct/tiny", 2
  assert validate(config) is config
  config.data[key] = value
  with pytest.raises(UserError, match=f"config.data.{key}.*{complaint}"):
    validate(config)


@pytest.mark.parametrize(
  ("changes", "complaint"),
  [
    ({"loss.focal": 1.0, "train.accumulate": 2}, r"loss\.focal=1\.0: .*accumulate=2 needs"),
    ({"parallel.space": 2, "parallel.mode": "pmap"}, "space=2: 'pmap' divides no patch"),
    ({"parallel.space": 2, "model.conv": "winograd"}, "conv='winograd': would gather the patch"),
  ],
)
def test_what_cannot_be_divided_on_any_device_is_refused(changes, complaint):
  config = default()
  config.data.dataset = "phantom_ct/tiny"
  config.update_from_flattened_dict(changes)
  with pytest.raises(UserError, match=complaint):
    validate(config)


def test_one_piece_of_a_boundary_is_refused():
  config = default()
  config.data.dataset, config.inference.largest_component = "phantom_ct/tiny", True
  assert validate(config) is config
  config.data.target = "boundary"
  with pytest.raises(UserError, match=r"inference\.largest_component=True: must be False"):
    validate(config)


def test_no_loss_is_refused():
  config = default()
  config.data.dataset = "phantom_ct/tiny"
  config.loss.dice = config.loss.bce = 0.0
  with pytest.raises(UserError, match="at least one weight"):
    validate(config)


def test_hnn_is_trained_by_its_side_outputs_alone():
  config = default()
  config.data.dataset = "phantom_ct/tiny"
  config.model.name = "hnn"
  with pytest.raises(UserError, match=r"loss\.side_bce=0\.0: must be the only loss of hnn"):
    validate(config)
  config.loss.side_bce = 1.0
  with pytest.raises(UserError, match="must be the only loss of hnn"):
    validate(config)
  config.loss.dice = config.loss.bce = 0.0
  assert validate(config) is config


def test_a_config_that_may_not_be_read_is_not_called_foreign(tmp_path, unreadable):
  path = tmp_path / "config.json"
  path.write_text(to_json(default()))
  unreadable(path)
  with pytest.raises(UserError, match=r"config\.json: cannot be read \(Permission denied\)"):
    load(path)


@pytest.mark.parametrize("variant", ["", "paper_loss", "phantom", "one_scan"])
def test_experiments_are_valid(variant):
  config = get_config(variant)
  if not config.data.dataset:
    config.data.folder = "somewhere"
  assert validate(config) is config
  json.loads(to_json(config))


def test_the_default_experiment_is_the_papers_recipe():
  config = get_config()
  assert config.data.blur_mm == 0.75
  assert config.data.spacing_mm == 2.0
  assert config.data.patch == (160, 160, 96)
  assert config.data.normalisation == "zscore"
  assert (config.optimizer.learning_rate, config.optimizer.weight_decay) == (1e-4, 1e-6)
  assert {k: v for k, v in config.loss.items() if v} == {"dice": 1.0, "bce": 1.0}
  weights = {k: v for k, v in get_config("paper_loss").loss.items() if v}
  assert weights == {"reference_dice": 1.0}


def test_an_unknown_variant_is_refused():
  with pytest.raises(UserError, match="no such variant"):
    get_config("nope")


def test_a_config_that_does_not_start_from_the_defaults_is_refused():
  with pytest.raises(UserError, match="start from default"):
    validate(ConfigDict({"data": {"folder": "x"}}))


@pytest.mark.parametrize("seed", [-1, 2**30])
def test_a_seed_out_of_range_is_refused(seed):
  config = default()
  config.data.dataset, config.seed = "phantom_ct/tiny", seed
  with pytest.raises(UserError, match=r"config\.seed"):
    validate(config)
