"""Networks, losses and augmentations from outside the package, named by their import paths."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.config import default
from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.overrides import apply_overrides
from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.config.schema import flatten
from attn_unet_jax.config.stored import find_differences, load_config, to_json
from attn_unet_jax.losses.total import sum_terms
from attn_unet_jax.patches.batch import make_training_batch
from attn_unet_jax.patches.device_source import make_resident
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.state import create_state
from attn_unet_jax.training.step import train_step
from attn_unet_jax.workflows.network import build_run_network

MODULE = """
import flax.linen as nn
import jax.numpy as jnp


class MyNet(nn.Module):
  num_classes: int = 2
  width: int = 3
  rates: tuple[int, ...] = (1,)
  dtype: jnp.dtype = jnp.float32
  patch_multiple = (2, 2, 2)
  output_margin = (0, 0, 0)

  @nn.compact
  def __call__(self, x, train):
    for rate in self.rates:
      x = nn.relu(nn.Conv(self.width, (3, 3, 3), kernel_dilation=rate, dtype=self.dtype)(x))
    return nn.Conv(self.num_classes, (1, 1, 1), dtype=self.dtype)(x), {}


def mean_square(logits, labels):
  return jnp.mean((logits[..., 1] - labels) ** 2)


def brighten(key, image):
  return image + 10
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
  """The name of a module of the user's, in a folder that Python looks into."""
  name = "my_module"
  (tmp_path / f"{name}.py").write_text(MODULE)
  monkeypatch.syspath_prepend(tmp_path)
  yield name
  sys.modules.pop(name, None)


@pytest.fixture
def draft():
  draft = default()
  draft.data.patch = (8, 8, 8)
  draft.augment.update(flip=(0.0,) * 3, rotate_deg=(0.0,) * 3, scale=(1.0, 1.0), shift=(0.0,) * 3)
  return draft


def _read_back(config, folder):
  path = folder / "config.json"
  path.write_text(to_json(config))
  return load_config(path)


def _data():
  rng = np.random.default_rng(0)
  image = rng.integers(-200, 300, (12, 13, 14)).astype(np.int16)
  case = WorkingCase("a", image, (image > 200).astype(np.uint8), float(image.mean()), 7.0)
  return make_resident([case], (8, 8, 8))


def test_a_network_is_built_stored_and_trained(module, draft, tmp_path):
  draft.model.name = f"{module}:MyNet"
  draft.model.width = 5
  config = resolve_draft(draft, data=False)
  net = build_run_network(config, 3)
  assert type(net).__module__ == module
  assert (net.width, net.rates, net.num_classes) == (5, (1,), 3)
  assert config.model.feature_scale == 1.0
  stored = _read_back(config, tmp_path)
  assert stored == config
  assert build_run_network(stored, 2).width == 5
  wider = replace_keys(config, {"model.width": 6})
  assert find_differences(config, wider) == {"model.width": (5, 6)}
  net = build_run_network(config, 2)
  state = create_state(config, net)
  after, outcome = jax.jit(lambda state, data: train_step(config, net, state, data))(state, _data())
  assert np.isfinite(outcome.loss)
  assert outcome.gradient_norm > 0
  before = state.params["Conv_0"]["kernel"]
  assert before.shape[-1] == 5
  assert (np.asarray(after.params["Conv_0"]["kernel"]) != before).any()


def test_a_networks_own_fields_are_flags(module, draft):
  texts = {"model.name": f"{module}:MyNet", "model.width": "7", "model.rates": "(1, 2)"}
  draft.model.gates = 1
  (line,) = apply_overrides(draft, texts)
  assert "model.gates=1" in line
  net = build_run_network(resolve_draft(draft, data=False), 2)
  assert (net.width, net.rates) == (7, (1, 2))
  with pytest.raises(UserError, match=r"unknown config key config\.model\.depth"):
    resolve_draft(_with(draft, "depth", 3), data=False)
  with pytest.raises(UserError, match=r"dtype='int8': must be one of"):
    resolve_draft(_with(draft, "dtype", "int8"), data=False)


def _with(draft, name, value):
  draft = draft.copy_and_resolve_references()
  draft.model[name] = value
  return draft


def test_a_network_that_cannot_take_the_patch_is_told_the_nearest(module, draft):
  draft.model.name, draft.data.patch = f"{module}:MyNet", (7, 8, 8)
  with pytest.raises(UserError, match=r"data\.patch=\(7, 8, 8\): my_module:MyNet cannot take it"):
    build_run_network(resolve_draft(draft, data=False), 2)


def test_a_loss_is_summed_with_its_weight_and_stored(module, draft, tmp_path):
  name = f"{module}:mean_square"
  draft.loss.external = ((name, 0.5),)
  config = resolve_draft(draft, data=False)
  assert config.loss.weights == {"dice": 1.0, "bce": 1.0, name: 0.5}
  assert _read_back(config, tmp_path) == config
  assert flatten(config)["loss.external"] == ((name, 0.5),)
  logits = jnp.stack([jnp.zeros((1, 2, 2, 2)), jnp.full((1, 2, 2, 2), 3.0)], -1)
  labels = jnp.ones((1, 2, 2, 2), jnp.int32)
  total, terms = sum_terms(config.loss.terms, logits, labels)
  assert terms[name] == 4.0
  assert total == pytest.approx(float(terms["dice"] + terms["bce"]) + 0.5 * 4.0)


def test_an_augmentation_is_applied_and_stored(module, draft, tmp_path):
  plain = resolve_draft(draft, data=False)
  draft.augment.extra = (f"{module}:brighten",)
  config = resolve_draft(draft, data=False)
  assert _read_back(config, tmp_path) == config
  data = _data()
  before, after = (make_training_batch(one, data, 0) for one in (plain, config))
  np.testing.assert_allclose(after.image, before.image + 10, atol=1e-5)
  np.testing.assert_array_equal(after.label, before.label)


@pytest.mark.parametrize(
  ("path", "said"),
  [
    ("no_such_module:MyNet", "there is no module 'no_such_module'; install it, or put"),
    ("my_module:Other", "the module my_module has no 'Other'"),
    ("my_broken:MyNet", r"does not load \(ValueError: oops\)"),
    ("my_needy:MyNet", "there is no module 'not_installed'; install it"),
  ],
)
def test_what_cannot_be_imported_says_what_is_missing(module, draft, tmp_path, path, said):
  (tmp_path / "my_broken.py").write_text("raise ValueError('oops')")
  (tmp_path / "my_needy.py").write_text("import not_installed")
  with pytest.raises(UserError, match=rf"^config\.model\.name='{path}': {said}"):
    resolve_draft(_with(draft, "name", path), data=False)
  draft.loss.external = ((path, 1.0),)
  draft.augment.extra = (path,)
  config = resolve_draft(draft, data=False)
  logits, labels = jnp.zeros((1, 2, 2, 2, 2)), jnp.zeros((1, 2, 2, 2), jnp.int32)
  with pytest.raises(UserError, match=rf"^config\.loss='{path}': {said}"):
    sum_terms(config.loss.terms, logits, labels)
  with pytest.raises(UserError, match=rf"^config\.augment\.extra='{path}': {said}"):
    make_training_batch(config, _data(), 0)


def test_a_stored_network_that_has_gone_is_named_with_its_file(module, draft, tmp_path):
  draft.model.name = f"{module}:MyNet"
  path = tmp_path / "config.json"
  path.write_text(to_json(resolve_draft(draft, data=False)).replace(module, "gone_module"))
  with pytest.raises(UserError, match="there is no module 'gone_module'") as refused:
    load_config(path)
  assert str(refused.value).startswith(f"{path}: ")
