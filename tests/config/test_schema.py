"""The keys of a run: explained, read by some code, and refused where nothing would read them."""

import ast
import dataclasses
import inspect
import subprocess
import sys
from collections.abc import Iterator

import jax
import pytest

from attn_unet_jax.augment.occasional import OCCASIONAL
from attn_unet_jax.config import default
from attn_unet_jax.config.build import build, replace_keys
from attn_unet_jax.config.experiment import load_experiment
from attn_unet_jax.config.overrides import apply_overrides
from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.config.schema import OPEN_SECTIONS, RunConfig, flatten, list_keys, suggest_key
from attn_unet_jax.losses.options import LOSSES
from attn_unet_jax.losses.total import load_loss
from attn_unet_jax.models.options import NETWORKS
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.import_path import load_object
from attn_unet_jax.training.state import abstract_state
from attn_unet_jax.workflows.network import build_run_network
from tests.conftest import ROOT

KEYS = sorted({key.name for key in list_keys()})
FIXED = [key for key in KEYS if key.partition(".")[0] not in (*OPEN_SECTIONS, "loss")]


def _attributes() -> set[str]:
  """Every `section.key` that code reads: by `config.section.key`, or of the section alone."""
  own = ROOT / "attn_unet_jax" / "config"
  return {
    ".".join(ast.unparse(node).split(".")[-2:])
    for path in (ROOT / "attn_unet_jax").rglob("*.py")
    if own not in path.parents
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Attribute)
  }


# `apply_occasional` reads these by their names.
ATTRIBUTES = _attributes() | {f"augment.{name}_probability" for name in OCCASIONAL}
# What a function calls the section that it is given.
CALLED = {
  "": ("config", "recipe"),
  "augment": ("augmentation", "options", "self"),
  "data": ("data", "options", "self"),
  "evaluation": ("rules",),
  "inference": ("self",),
}


def _is_read(key: str) -> bool:
  section, _, name = key.rpartition(".")
  names = (section, *CALLED.get(section, ()))
  return any(f"{called}.{name}" in ATTRIBUTES for called in names)


@pytest.mark.parametrize("key", FIXED)
def test_every_key_is_read_by_some_code(key):
  assert _is_read(key), f"nothing reads config.{key}"


def test_a_key_that_nothing_reads_would_be_found():
  assert not _is_read("data.unread")
  assert not _is_read("unread")


@pytest.mark.parametrize("name", NETWORKS)
def test_every_option_of_a_network_is_a_field_of_its_module(name):
  module = load_object(NETWORKS[name].module, "")
  options = {field.name for field in dataclasses.fields(NETWORKS[name])}
  assert options <= {field.name for field in dataclasses.fields(module)}


@pytest.mark.parametrize("name", LOSSES)
def test_every_option_of_a_loss_is_an_argument_of_its_function(name):
  options = {field.name for field in dataclasses.fields(LOSSES[name].options)}
  assert options <= inspect.signature(load_loss(name)).parameters.keys()


@pytest.mark.parametrize("key", [*list_keys()], ids=lambda key: f"{key.name}-{key.reader}")
def test_every_key_is_explained(key):
  doc = key.field.metadata["doc"]
  assert doc.endswith(".")
  assert "\n" not in doc


def test_an_unknown_key_of_a_draft_fails():
  with pytest.raises(AttributeError, match="patc"):
    default().data.patc = 3


def test_a_config_does_not_change():
  config = RunConfig()
  for changed, name in ((config, "seed"), (config.data, "patch"), (config.loss, "terms")):
    with pytest.raises(dataclasses.FrozenInstanceError):
      setattr(changed, name, 3)


@pytest.mark.parametrize(
  ("values", "said"),
  [
    (
      {"model.trunk_norm": "group"},
      "config.model.trunk_norm: attention_unet does not read it; it is a key of hnn",
    ),
    (
      {"model.name": "vnet", "model.gates": 1},
      "config.model.gates: vnet does not read it; it is a key of attention_unet",
    ),
    (
      {"model.name": "unet", "model.gate_finest": True},
      "config.model.gate_finest: unet does not read it; it is a key of attention_unet, "
      "dual_attention",
    ),
    (
      {"optimizer.momentum": 0.5},
      "config.optimizer.momentum: adam does not read it; it is a key of sgd",
    ),
    (
      {"optimizer.name": "sgd", "optimizer.betas": (0.9, 0.99)},
      "config.optimizer.betas: sgd does not read it; it is a key of adam, adamw",
    ),
    (
      {"optimizer.schedule": "cosine", "optimizer.decay_epochs": 3},
      "config.optimizer.decay_epochs: only schedule=step reads it, and config.optimizer.schedule "
      "is 'cosine'",
    ),
    (
      {"loss_options.focal_gamma": 1.0},
      "config.loss_options.focal_gamma: bce + dice does not read it; it is a key of focal",
    ),
    (
      {"loss_options.foreground": 0.1},
      "config.loss_options.foreground: bce + dice does not read it; it is a key of balanced_bce, "
      "side_bce",
    ),
  ],
)
def test_a_key_of_another_choice_is_refused_by_who_reads_it(values, said):
  with pytest.raises(UserError) as refused:
    build(values)
  assert str(refused.value) == said


@pytest.mark.parametrize(
  ("key", "words"),
  [
    ("learning_rate", "did you mean config.optimizer.learning_rate?"),
    ("data.learning_rate", "did you mean config.optimizer.learning_rate?"),
    ("train.epoch", "did you mean config.train.epochs?"),
    ("model.feature_scal", "did you mean config.model.feature_scale?"),
    ("optimizer.name.first", "did you mean"),
    ("nothing", "--help list the keys"),
  ],
)
def test_an_unknown_key_is_told_the_nearest(key, words):
  assert words in suggest_key(key)
  with pytest.raises(UserError, match=f"^unknown config key config.{key}; ") as refused:
    build({key: 1})
  assert words in str(refused.value)


def test_what_a_new_choice_does_not_read_is_left_out():
  config = build({"model.gates": 1, "model.feature_scale": 8.0, "optimizer.decay_epochs": 3})
  changed = replace_keys(config, {"model.name": "vnet", "optimizer.schedule": "constant"})
  assert changed.model == NETWORKS["vnet"](feature_scale=8.0)
  assert not flatten(changed).keys() & {"model.gates", "optimizer.decay_epochs"}
  with pytest.raises(UserError, match=r"config\.model\.gates: vnet does not read it"):
    replace_keys(config, {"model.name": "vnet", "model.gates": 1})


def _keys_of_every_choice() -> Iterator[tuple[str, dict[str, object]]]:
  for name in NETWORKS:
    yield name, {"model.name": name}
  for name in ("adam", "adamw", "sgd"):
    yield name, {"optimizer.name": name}
  for name in LOSSES:
    yield name, {f"loss.{name}": 2.0}


@pytest.mark.parametrize("values", [pytest.param(v, id=n) for n, v in _keys_of_every_choice()])
def test_a_config_is_built_again_from_its_keys(values):
  config = build(values)
  assert build(flatten(config)) == config
  assert flatten(config).keys() <= set(KEYS)


def _resolved(experiment: str, **texts: str) -> RunConfig:
  draft = load_experiment(experiment)
  apply_overrides(draft, {key.replace("__", "."): text for key, text in texts.items()})
  return resolve_draft(draft)


def _parameters(config: RunConfig) -> int:
  params = abstract_state(config, build_run_network(config, 2)).params
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def test_another_network_has_its_published_width():
  config = _resolved("pancreas:phantom", model__name="vnet")
  assert config.model == NETWORKS["vnet"]()
  assert config.model.feature_scale == 1.0
  assert _parameters(config) == 65_175_314


def test_a_network_of_the_same_family_has_the_experiments_width():
  width = _resolved("pancreas:phantom").model.feature_scale
  assert width == 8.0
  assert _resolved("pancreas:phantom", model__name="unet").model.feature_scale == width


LIGHT = """
import importlib, pathlib, sys
from attn_unet_jax.config import default
default()
root = pathlib.Path({root!r})
paths = [*root.glob("attn_unet_jax/config/*.py"), *root.glob("attn_unet_jax/*/options.py")]
assert len(paths) > 12, paths
names = [".".join(path.relative_to(root).with_suffix("").parts) for path in paths]
for name in [*names, "attn_unet_jax.labels", "attn_unet_jax.cases.folds"]:
  importlib.import_module(name)
print(sorted({{"jax", "jaxlib", "flax", "optax", "tensorflow"}} & sys.modules.keys()))
"""


def test_configs_labels_and_folds_load_no_jax():
  code = LIGHT.format(root=str(ROOT))
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
  assert (done.stdout, done.stderr) == ("[]\n", "")
