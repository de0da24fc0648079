"""The pages that add a network, a loss and an augmentation are followed to the letter."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.augment.options import Augmentation
from attn_unet_jax.augment.patch import augment_patch
from attn_unet_jax.augment.registry import AUGMENTATIONS
from attn_unet_jax.config import schema
from attn_unet_jax.config.experiment import load_experiment
from attn_unet_jax.config.overrides import apply_overrides, take_overrides
from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.config.stored import load_config, to_json
from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.losses.options import LOSSES
from attn_unet_jax.losses.total import sum_terms
from attn_unet_jax.models.build import build_network, external_options
from attn_unet_jax.models.options import NETWORKS
from attn_unet_jax.runtime.errors import UserError
from tests.conftest import ROOT

REGISTRIES = {"NETWORKS": NETWORKS, "LOSSES": LOSSES, "AUGMENTATIONS": AUGMENTATIONS}
NETWORK, LOSS, AUGMENTATION = "add-a-network", "add-a-loss", "add-an-augmentation"


def read_page(name):
  return (ROOT / f"docs/how-to/{name}.md").read_text()


def code_blocks(page):
  """The Python of a page, by what the comment on its first line names."""
  return dict(re.findall(r"^```python\n# (\S+)\n(.*?)^```", read_page(page), re.M | re.S))


def command_flags(page):
  """The flags of the command that the page starts with a module of the user's."""
  (block,) = re.findall(
    r"^```\npython -m attn_unet_jax.main (.*?)^```", read_page(page), re.M | re.S
  )
  return shlex.split(block)


def final_flags(page):
  """The flags of which the page says at its end that they work now."""
  (text,) = re.findall(r"^Now `(.*?)`\s+works", read_page(page), re.M | re.S)
  return ["--config=experiments/pancreas.py", "--config.data.folder=DATA", *shlex.split(text)]


def resolve(flags):
  rest, texts = take_overrides(flags)
  (experiment,) = [flag.removeprefix("--config=") for flag in rest if flag.startswith("--config=")]
  draft = load_experiment(str(ROOT / experiment))
  apply_overrides(draft, texts)
  return resolve_draft(draft)


def read_back(config, folder):
  path = folder / "config.json"
  path.write_text(to_json(config))
  return load_config(path)


@pytest.fixture
def follow(tmp_path, monkeypatch):
  """Does what a page says, outside or inside the package; what it did is undone afterwards."""
  present = set(sys.modules)
  packages = {}

  def outside(page):
    ((name, code),) = [item for item in code_blocks(page).items() if item[0].startswith("my_")]
    (tmp_path / name).write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    return resolve(command_flags(page))

  def inside(page):
    classes = {}  # of the options that the page adds
    for name, code in code_blocks(page).items():
      if name in REGISTRIES:
        entry = eval(f"{{{code}}}", classes)
        for key, value in entry.items():
          monkeypatch.setitem(REGISTRIES[name], key, value)
      elif (ROOT / name).exists():  # what the page adds to a file of the package
        module = importlib.import_module(name.removesuffix(".py").replace("/", "."))
        classes = dict(vars(module))
        exec(code, classes)
      elif name.startswith("attn_unet_jax/"):
        folder = Path(name).parent
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / name).write_text(code)
        package = importlib.import_module(str(folder).replace("/", "."))
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / folder)])
        packages[Path(name).stem] = package
    # The section `loss` has a key for every line of LOSSES, made when the program starts.
    monkeypatch.setitem(schema.FIXED_SECTIONS, "loss", schema._loss_weights()())
    return resolve(final_flags(page))

  yield {"outside": outside, "inside": inside}
  for name in set(sys.modules) - present:
    if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
      del sys.modules[name]
  for stem, package in packages.items():
    vars(package).pop(stem, None)
  external_options.cache_clear()


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_a_network_is_added(follow, tmp_path, where):
  config = follow[where](NETWORK)
  assert config.model.width == 16
  assert read_back(config, tmp_path) == config
  network = build_network(config.model, 3)
  x = jnp.ones((1, 4, 4, 4, 1))
  (logits, out), variables = network.init_with_output(jax.random.key(0), x, train=False)
  assert (logits.shape, out) == ((1, 4, 4, 4, 3), {})
  assert variables["params"]["Conv_0"]["kernel"].shape == (3, 3, 3, 1, 16)


def test_the_range_of_an_added_option_holds(follow):
  follow["inside"](NETWORK)
  flags = [re.sub(r"width=\d+", "width=0", flag) for flag in final_flags(NETWORK)]
  with pytest.raises(UserError, match=r"config\.model\.width=0: must be above 0"):
    resolve(flags)


# Of probabilities (1/4, 3/4), or (1/10, 9/10) where the logits are doubled; labels 1 and 0.
@pytest.mark.parametrize(
  ("where", "name", "value"),
  [
    ("outside", "my_losses:brier", (2 / 16 + 2 * 9 / 16) / 2),
    ("inside", "brier", (2 / 100 + 2 * 81 / 100) / 2),
  ],
)
def test_a_loss_is_added(follow, tmp_path, where, name, value):
  config = follow[where](LOSS)
  assert config.loss.weights[name] == 0.5
  assert read_back(config, tmp_path) == config
  logits = jnp.broadcast_to(jnp.log(jnp.array([1.0, 3.0])), (1, 3, 1, 1, 2))
  labels = jnp.array([1, 0, UNLABELLED]).reshape(1, 3, 1, 1)
  total, terms = sum_terms(config.loss.terms, logits, labels)
  assert terms[name] == pytest.approx(value)
  others = [term.weight * terms[term.name] for term in config.loss.terms if term.name != name]
  assert total == pytest.approx(float(sum(others)) + value / 2)


def test_the_page_replaces_a_term(follow):
  assert "bce" not in follow["outside"](LOSS).loss.weights


@pytest.mark.parametrize("where", ["outside", "inside"])
def test_an_augmentation_is_added(follow, tmp_path, where):
  config = follow[where](AUGMENTATION)
  assert read_back(config, tmp_path) == config
  names = {"outside": ("my_augmentations:add_streaks", "gamma"), "inside": ("streaks",)}
  assert config.augment.extra == names[where]
  image, label = jnp.zeros((8, 8, 8)), jnp.ones((8, 8, 8), jnp.uint8)
  alone = Augmentation(extra=config.augment.extra[:1])
  after, same = augment_patch(jax.random.key(0), image, label, image.shape, alone)
  assert float(np.ptp(after, axis=0).max()) == 0  # lines along X
  assert 0.02 < float(after.std()) < 0.1
  np.testing.assert_array_equal(same, label)


@pytest.mark.parametrize("page", [NETWORK, LOSS, AUGMENTATION])
def test_a_module_that_has_gone_is_named(follow, tmp_path, page):
  config = follow["outside"](page)
  (path,) = tmp_path.glob("my_*.py")
  path.unlink()
  sys.modules.pop(path.stem, None)
  importlib.invalidate_caches()
  external_options.cache_clear()
  uses = {NETWORK: read_back, LOSS: compute_loss, AUGMENTATION: change_intensity}
  with pytest.raises(UserError, match=f"there is no module '{path.stem}'; install it, or put"):
    uses[page](config, tmp_path)


def compute_loss(config, _):
  return sum_terms(config.loss.terms, jnp.zeros((1, 1, 1, 1, 2)), jnp.zeros((1, 1, 1, 1), int))


def change_intensity(config, _):
  image = jnp.zeros((2, 2, 2))
  extra = Augmentation(extra=config.augment.extra)
  return augment_patch(jax.random.key(0), image, image, image.shape, extra)


def test_an_added_loss_does_not_divide_the_batch(follow):
  follow["outside"](LOSS)
  with pytest.raises(UserError, match=r"use --config\.train\.accumulate=1"):
    resolve([*command_flags(LOSS), "--config.train.accumulate=2"])


def test_an_experiment_file_is_written(tmp_path):
  (code,) = code_blocks("change-the-training").values()
  path = tmp_path / "my_experiment.py"
  path.write_text(code)
  plain, dice = (
    resolve_draft(load_experiment(f"{path}{variant}"), data=False) for variant in ("", ":dice")
  )
  assert plain.optimizer.learning_rate == dice.optimizer.learning_rate == 3e-4
  assert (set(plain.loss.weights), set(dice.loss.weights)) == ({"bce", "dice"}, {"dice"})
