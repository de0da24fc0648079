"""An exported window, written and read again, says what the network says."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.inference.exported_window import PLATFORMS, export_window
from attn_unet_jax.inference.run_exported import open_network
from attn_unet_jax.inference.sliding import SlidingWindow
from attn_unet_jax.models.build import nearest_patch
from attn_unet_jax.models.layers import Conv
from tests.configs import with_keys
from tests.networks import build

WINDOW = (10, 9, 8)


class OneConv(nn.Module):
  """One convolution, whose form is chosen by the platform as those of every network here."""

  num_classes: int = 2
  padding: str = "SAME"
  patch_multiple = (1, 1, 1)

  @property
  def output_margin(self):
    return (1, 1, 1) if self.padding == "VALID" else (0, 0, 0)

  @nn.compact
  def __call__(self, x, train):
    return Conv(self.num_classes, padding=self.padding)(x), {}


def draw_parameters(module, seed=0):
  rng = np.random.default_rng(seed)
  kernel = rng.normal(size=(3, 3, 3, 1, module.num_classes)).astype(np.float32)
  bias = rng.normal(size=module.num_classes).astype(np.float32)
  return {"params": {"Conv_0": {"kernel": kernel, "bias": bias}}}


def one_conv(config, seed=0, **options):
  """A system of that network with parameters of its own."""
  module = OneConv(**options)
  return SlidingWindow(config, module).use(draw_parameters(module, seed))


def contract(exported, window, answer, classes=2):
  return {
    "windows": {"shape": window, "answer": answer},
    "classes": dict.fromkeys(range(classes)),
    "network": {
      "inputs": [None] * len(exported.in_avals),
      "platforms": exported.platforms,
      "calling_convention_version": exported.calling_convention_version,
    },
  }


def reopen(exported, folder, answer, classes=2):
  path = folder / "network.stablehlo"
  path.write_bytes(exported.mlir_module_serialized)
  return open_network(path, contract(exported, WINDOW, answer, classes))


def draw_windows(count):
  return np.random.default_rng(1).integers(-300, 400, (count, *WINDOW)).astype(np.float32)


def test_a_file_says_what_the_network_says(config, tmp_path):
  config = with_keys(config, {"inference.class_weights": (1.0, 3.0, 2.0)})
  system = one_conv(config, num_classes=3, padding="VALID")
  exported = export_window([system], WINDOW, uses_statistics=False)
  assert exported.platforms == PLATFORMS
  network = reopen(exported, tmp_path, (8, 7, 6), 3)
  for hu in (draw_windows(1), draw_windows(3)):
    expected = [np.asarray(system.window(system.variables, one, 0.0, 1.0)) for one in hu]
    found = np.asarray(network(hu))
    assert found.shape == (len(hu), 8, 7, 6, 3)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_members_are_averaged_each_with_its_own_normalisation(config, tmp_path):
  scaled = with_keys(config, {"data.normalisation": "zscore"})
  members = [one_conv(config, 0), one_conv(scaled, 1), one_conv(scaled, 2)]
  network = reopen(export_window(members, WINDOW, uses_statistics=True), tmp_path, WINDOW)
  hu = draw_windows(2)
  expected = [
    np.mean([np.asarray(one.window(one.variables, part, -40.0, 250.0)) for one in members], 0)
    for part in hu
  ]
  found = np.asarray(network(hu, np.float32(-40), np.float32(250)))
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
  other = np.asarray(network(hu, np.float32(0), np.float32(100)))
  assert np.abs(other - found).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", ["attention_unet", "unet3d"])
def test_networks_are_lowered_with_their_parameters_once(config, name):
  """For each of three platforms, whose forms of convolution differ."""
  module, rng = build(name), np.random.default_rng(0)
  x, y, z = nearest_patch(module, (32, 32, 32))
  image = jnp.zeros((1, x, y, z, 1))
  shapes = jax.eval_shape(lambda key: module.init(key, image, train=False), jax.random.key(0))
  variables = jax.tree.map(lambda one: rng.normal(size=one.shape).astype(one.dtype), shapes)
  system = SlidingWindow(config, module).use(variables)
  exported = export_window([system], (x, y, z), uses_statistics=False)
  held = sum(one.nbytes for one in jax.tree.leaves(variables))
  assert held < len(exported.mlir_module_serialized) < 1.05 * held
