"""From a draft to a config: each value is checked, with its key and its rule."""

import math

import pytest
from ml_collections import ConfigDict

from attn_unet_jax.config import default
from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.runtime.errors import UserError

# What reads a key that not every run reads.
READERS = {
  "model.dilation_rates": {"model.name": "dense_vnet"},
  "model.channels_kept": {"model.name": "dense_vnet"},
  "model.trunk_norm": {"model.name": "hnn"},
  "optimizer.momentum": {"optimizer.name": "sgd"},
  "loss_options.class_weights": {"loss.weighted_ce": 1.0},
  "loss_options.focal_gamma": {"loss.focal": 1.0},
  "loss_options.tversky_alpha": {"loss.tversky": 1.0},
}


def _draft(changes):
  draft = default()
  draft.data.dataset = "phantom_ct/tiny"
  for key, value in changes.items():
    section, _, name = key.rpartition(".")
    (draft[section] if section else draft)[name] = value
  return draft


@pytest.mark.parametrize(
  ("key", "value", "complaint"),
  [
    ("seed", -1, "0 to 2^30 - 1"),
    ("seed", 2**30, "0 to 2^30 - 1"),
    ("model.name", "nonet", "one of"),
    ("model.remat", 99, "at most 5"),
    ("model.gate_bias_init", math.nan, "finite"),
    ("model.gate_bias_init", "open", "of type float"),
    ("model.feature_scale", 100.0, "at most 64"),
    ("model.feature_scale", "8", "of type float"),
    ("model.gates", True, "of type int"),
    ("model.gates", 3, "one of (1, 2)"),
    ("model.dilation_rates", (1, 2), "tuples of whole numbers above 0"),
    ("model.dilation_rates", ((1, 0),), "tuples of whole numbers above 0"),
    ("model.channels_kept", 0.0, "above 0, at most 1"),
    ("model.trunk_norm", "batch", "one of"),
    ("data.spacing_mm", 0.0, "0.0001 to 100 mm"),
    ("data.spacing_mm", math.inf, "finite"),
    ("data.spacing_mm", None, "of type float"),
    ("data.blur_mm", math.inf, "finite"),
    ("data.blur_mm", -1.0, "at least 0"),
    ("data.window_hu", (5.0, 5.0), "lower end below"),
    ("data.foreground_fraction", 1.5, "0 to 1"),
    ("data.patches_per_case", 100_001, "1 to 100000: the schedule counts the patches of all open"),
    ("data.patch", (48,), "3 values of type int, like (160, 160, 96)"),
    ("data.patch", (10**400, 48, 48), "finite"),
    ("data.patch", (48.0, 48.0, 48.0), "type int"),
    ("data.patch", ("a", 2, 3), "type int"),
    (
      "data.label_resampling",
      "linear",
      "one of ('balanced', 'nearest', 'onehot_linear', 'occupancy')",
    ),
    ("optimizer.name", "rmsprop", "one of"),
    ("optimizer.learning_rate", math.inf, "finite"),
    ("optimizer.betas", (1.5, 2.0), "below 1"),
    ("optimizer.decay_epochs", 0, "above 0"),
    ("optimizer.momentum", 1.0, "below 1"),
    ("optimizer.schedule", "linear", "one of"),
    ("optimizer.layer_rates", ("gating", 0.1), "pairs of a regex and a factor"),
    ("optimizer.layer_rates", (("gating", -1.0),), "pairs of a regex and a factor"),
    ("optimizer.layer_rates", (("gating", math.inf),), "finite"),
    ("optimizer.layer_rates", (("(", 1.0),), "regular expressions"),
    ("init.freeze", "(", "regular expressions"),
    ("augment.rotate_deg", (math.nan, 0.0, 0.0), "finite"),
    ("augment.scale", (0.0, 0.0), "above 0"),
    ("augment.scale", (1.2, 0.8), "(lo, hi) with lo <= hi"),
    ("augment.corner_scale", 1.0, "below 1"),
    ("augment.extra", ("blur",), "names of ['gamma'], or import paths"),
    ("loss.dice", math.nan, "finite"),
    ("loss.dice", -1.0, "at least 0"),
    ("loss.external", ("my_losses:mine", 1.0), "pairs of an import path and a weight"),
    ("loss.external", (("mine", 1.0),), "pairs of an import path and a weight"),
    ("loss.external", (("my_losses:mine", -1.0),), "pairs of an import path and a weight"),
    ("loss_options.class_weights", (1.0,), "() or 2 values"),
    ("loss_options.class_weights", (1.0, -1.0), "() or 2 values"),
    ("loss_options.class_weights", (0.0, 0.0), "not all 0"),
    ("loss_options.class_weights", ("a", "b"), "() or 2 values"),
    ("loss_options.focal_gamma", -1.0, "at least 0"),
    ("loss_options.tversky_alpha", -1.0, "at least 0"),
    ("inference.class_weights", (1.0,), "() or 2 values"),
    ("inference.class_weights", (0.0, 1.0), "() or 2 values of at least 1e-09"),
    ("inference.overlap", 1.0, "below 1"),
    ("train.epochs", True, "of type int"),
    ("train.accumulate", 3, "a divisor of config.train.batch_size=2"),
    ("init.freeze", "encoder", "empty without config.init.workdir"),
    ("loss.side_bce", 1.0, "only hnn has side outputs"),
    ("parallel.mode", "shard", "one of"),
    ("parallel.data", -1, "at least 0"),
    ("parallel.space", 0, "above 0"),
    ("parallel.batch_norm", "none", "one of"),
    ("stages.count", 3, "one of"),
    ("stages.inner_folds", 1, "at least 2"),
    ("stages.superpixel_mm", 0.0, "above 0"),
    ("stages.foreground", (0.0, 1.0), "below 1"),
  ],
)
def test_bad_values_are_refused_with_their_key_and_rule(key, value, complaint):
  with pytest.raises(UserError) as refused:
    resolve_draft(_draft(READERS.get(key, {}) | {key: value}))
  said, _, rule = str(refused.value).partition(": must be ")
  assert said == f"config.{key}={value!r}"
  assert complaint in rule


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"data.folder": "x"}, "config.data.dataset='phantom_ct/tiny' and config.data.folder='x'"),
    ({"data.dataset": ""}, "config.data.dataset='' and config.data.folder=''"),
  ],
)
def test_one_data_set_is_named_where_one_is_needed(changes, said):
  with pytest.raises(UserError) as refused:
    resolve_draft(_draft(changes))
  assert str(refused.value) == f"{said}: give one of the two"
  resolve_draft(_draft(changes), data=False)


@pytest.mark.parametrize(
  ("key", "said"),
  [
    ("model.trunk_norm", "attention_unet does not read it; it is a key of hnn"),
    ("optimizer.nesterov", "adam does not read it; it is a key of sgd"),
    ("loss_options.focal_gamma", "bce + dice does not read it; it is a key of focal"),
    ("model.gate_fines", "did you mean config.model.gate_finest?"),
  ],
)
def test_a_key_of_an_open_section_that_nothing_reads_is_refused(key, said):
  with pytest.raises(UserError, match=rf"config\.{key}[:;]") as refused:
    resolve_draft(_draft({key: 1.0}))
  assert str(refused.value).endswith(said)


def test_a_draft_that_does_not_start_from_the_defaults_is_refused():
  with pytest.raises(UserError, match="start from default"):
    resolve_draft(ConfigDict({"data": {"folder": "x"}}))


def test_the_defaults_are_those_of_a_config():
  draft = _draft({"model.gates": 1, "augment.flip": (0.0, 0.0, 0.5)})
  changed = {
    "data.dataset": "phantom_ct/tiny",
    "model.gates": 1,
    "augment.flip": (0.0, 0.0, 0.5),
  }
  assert resolve_draft(default(), data=False) == RunConfig()
  assert resolve_draft(draft) == replace_keys(RunConfig(), changed)
