"""Flags `--config.section.key=value`: every key, every type, and what they drop."""

import pytest

from attn_unet_jax.config import default
from attn_unet_jax.config.draft import flatten_draft
from attn_unet_jax.config.experiment import load_experiment
from attn_unet_jax.config.overrides import apply_overrides, take_overrides
from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.config.schema import list_keys
from attn_unet_jax.runtime.errors import UserError

DEFAULTS = {key.name: key.default for key in list_keys()}


def _applied(*flags, experiment=None):
  """The draft that these flags make of an experiment or of the defaults; what was said of them."""
  draft = load_experiment(experiment) if experiment else default()
  rest, texts = take_overrides(flags)
  assert rest == []
  return draft, apply_overrides(draft, texts)


@pytest.mark.parametrize(("key", "value"), DEFAULTS.items())
def test_every_key_is_a_flag(key, value):
  given = _another(key, value)
  draft, _ = _applied(f"--config.{key}={given}")
  assert flatten_draft(draft) == flatten_draft(default()) | {key: given}


def _another(key, value):
  """A value of the same type; what is allowed does not matter here."""
  if key == "model.name":
    return "unet"
  if key == "optimizer.name":
    return "adamw"
  if isinstance(value, tuple):
    return tuple(_another("", one) for one in value) or (1.5, 2.5)
  if value is None:
    return 1.5
  return not value if isinstance(value, bool) else value + type(value)(1)


@pytest.mark.parametrize(
  ("flags", "key", "value"),
  [
    (["--config.data.folder=a b/c=d"], "data.folder", "a b/c=d"),
    (["--config.data.folder="], "data.folder", ""),
    (["--config.data.folder=5"], "data.folder", "5"),
    (["--config.data.label_resampling=onehot_linear"], "data.label_resampling", "onehot_linear"),
    (["--config.data.fold=all"], "data.fold", "all"),
    (["--config.data.fold=all", "--config.data.fold=2"], "data.fold", 2),
    (["--config.deterministic=true"], "deterministic", True),
    (["--config.deterministic=1"], "deterministic", True),
    (["--config.deterministic"], "deterministic", True),
    (["--noconfig.optimizer.decay_biases"], "optimizer.decay_biases", False),
    (["--config.optimizer.decay_biases=False"], "optimizer.decay_biases", False),
    (["--config.train.epochs=3"], "train.epochs", 3),
    (["--config.train.epochs", "3"], "train.epochs", 3),
    (["-config.train.epochs=3"], "train.epochs", 3),
    (["--config.train.epochs=3", "--config.train.epochs=4"], "train.epochs", 4),
    (["--config.optimizer.learning_rate=3e-4"], "optimizer.learning_rate", 3e-4),
    (["--config.optimizer.weight_decay", "0"], "optimizer.weight_decay", 0.0),
    (["--config.data.window_hu=-100,300"], "data.window_hu", (-100, 300)),
    (["--config.data.window_hu", "-100,300"], "data.window_hu", (-100, 300)),
    (["--config.data.patch=48,48,48"], "data.patch", (48, 48, 48)),
    (["--config.data.patch=(48, 48, 48)"], "data.patch", (48, 48, 48)),
    (["--config.data.patch=[48,48,48]"], "data.patch", (48, 48, 48)),
    (
      ["--config.augment.scale_axes=(True, False, True)"],
      "augment.scale_axes",
      (True, False, True),
    ),
    (["--config.augment.extra=gamma"], "augment.extra", ("gamma",)),
    (["--config.augment.extra=()"], "augment.extra", ()),
    (["--config.augment.extra='gamma','a:b'"], "augment.extra", ("gamma", "a:b")),
    (["--config.model.gate_bias_init=3"], "model.gate_bias_init", 3.0),
    (["--config.model.gate_bias_init=None"], "model.gate_bias_init", None),
    (["--config.model.dilation_rates=((1,), (1, 2))"], "model.dilation_rates", ((1,), (1, 2))),
    (["--config.inference.class_weights=0.1,1"], "inference.class_weights", (0.1, 1)),
    (
      ["--config.optimizer.layer_rates=(('gating', 0.1),)"],
      "optimizer.layer_rates",
      (("gating", 0.1),),
    ),
    (["--config.loss.external=(('a:b', 0.5),)"], "loss.external", (("a:b", 0.5),)),
  ],
)
def test_values_are_read_by_the_type_of_their_key(flags, key, value):
  draft, _ = _applied(*flags)
  found = flatten_draft(draft)[key]
  assert found == value
  assert type(found) is type(value)


@pytest.mark.parametrize(
  ("flag", "said"),
  [
    ("data.fold=one", "config.data.fold='one': must be of type int or 'all'"),
    ("data.fold=1.0", "config.data.fold='1.0': must be of type int or 'all'"),
    ("data.fold=True", "config.data.fold='True': must be of type int or 'all'"),
    ("data.spacing_mm=wide", "config.data.spacing_mm='wide': must be of type float"),
    ("data.spacing_mm=True", "config.data.spacing_mm='True': must be of type float"),
    ("model.gate_bias_init=open", "config.model.gate_bias_init='open': must be of type float"),
    ("deterministic=maybe", "config.deterministic='maybe': must be true or false"),
    (
      "data.patch=48,48",
      "config.data.patch='48,48': must be 3 values of type int, like (160, 160, 96)",
    ),
    (
      "data.patch=a,b,c",
      "config.data.patch='a,b,c': must be 3 values of type int, like (160, 160, 96)",
    ),
    (
      "learning_rate=3e-4",
      "unknown config key config.learning_rate; did you mean config.optimizer.learning_rate?",
    ),
    ("train.epoch=3", "unknown config key config.train.epoch; did you mean config.train.epochs?"),
    (
      "nothing=3",
      "unknown config key config.nothing; docs/reference/config.md and --help list the keys",
    ),
    ("data.fold", "--config.data.fold: write --config.data.fold=VALUE"),
  ],
)
def test_a_flag_that_is_wrong_is_told(flag, said):
  with pytest.raises(UserError) as refused:
    _applied(f"--config.{flag}")
  assert str(refused.value) == said


def test_a_value_is_not_taken_from_another_flag():
  with pytest.raises(UserError, match=r"write --config\.data\.fold=VALUE"):
    take_overrides(["--config.data.fold", "--workdir=a"])
  with pytest.raises(UserError, match=r"write --config\.data\.fold=VALUE"):
    take_overrides(["--noconfig.data.fold", "1"])


@pytest.mark.parametrize("value", ["inf", "nan", "1e999"])
def test_no_number_is_a_number_that_a_rule_refuses_by_name(value):
  draft, _ = _applied(f"--config.optimizer.learning_rate={value}")
  with pytest.raises(UserError, match=r"^config\.optimizer\.learning_rate=(inf|nan): must be fin"):
    resolve_draft(draft, data=False)


def test_other_flags_are_left_as_they_are():
  arguments = [
    "command",
    "--workdir",
    "a",
    "--config=experiments/vnet.py",
    "stray",
    "--config",
    "b",
  ]
  assert take_overrides([*arguments, "--config.seed=1"]) == (arguments, {"seed": "1"})


def test_another_network_drops_what_the_experiment_said_of_its_own():
  draft, lines = _applied("--config.model.name=vnet", experiment="pancreas:phantom")
  assert draft.model.to_dict() == {"name": "vnet"}
  assert lines == [
    "the experiment's model.feature_scale=8.0 no longer counts: it was said of another choice"
  ]


def test_another_network_has_the_width_that_is_given_with_it():
  flags = ("--config.model.name=vnet", "--config.model.feature_scale=2")
  draft, lines = _applied(*flags, experiment="pancreas:phantom")
  assert draft.model.to_dict() == {"name": "vnet", "feature_scale": 2.0}
  assert lines == []


def test_how_a_network_is_computed_stays():
  draft, _ = _applied("--config.model.name=vnet", experiment="pancreas_1mm")
  assert draft.model.to_dict() == {"name": "vnet", "dtype": "bfloat16"}


def test_a_network_of_the_same_family_keeps_what_it_reads():
  draft = default()
  draft.model.feature_scale, draft.model.gates = 8.0, 1
  assert apply_overrides(draft, {"model.name": "unet"}) == [
    "the experiment's model.gates=1 no longer counts: it was said of another choice"
  ]
  assert resolve_draft(draft, data=False).model.feature_scale == 8.0


def test_another_optimizer_drops_what_it_does_not_read():
  flags = ("--config.optimizer.name=adam", "--config.optimizer.schedule=cosine")
  draft, (line,) = _applied(*flags, experiment="vnet")
  config = resolve_draft(draft, data=False)
  assert (config.optimizer.name, config.optimizer.bias_rate) == ("adam", 2.0)
  for dropped in ("momentum=0.99", "decay_epochs=250", "decay_factor=0.1"):
    assert f"optimizer.{dropped}" in line


def test_another_loss_drops_what_it_does_not_read():
  flags = ("--config.loss.weighted_ce=0", "--config.loss.dice=1")
  draft, (line,) = _applied(*flags, experiment="unet3d")
  assert "loss_options.class_weights=(0.1, 1.0)" in line
  assert resolve_draft(draft, data=False).loss.weights == {"dice": 1.0}


def test_what_is_given_is_never_dropped():
  flags = ("--config.optimizer.name=adam", "--config.optimizer.momentum=0.9")
  draft, _ = _applied(*flags, experiment="vnet")
  with pytest.raises(UserError, match=r"optimizer\.momentum: adam does not read it; .* of sgd$"):
    resolve_draft(draft, data=False)
