import dataclasses

import flax.linen as nn
import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.state import create_state
from attn_unet_jax.workflows.network import build_run_network
from tests.configs import with_keys


def test_the_models_keys_are_the_networks_attributes(config):
  """Each reaches the network under its own name, the type as a type."""
  config = with_keys(
    config,
    {
      "model.gate": "softplus",
      "model.gating": "shared",
      "model.gate_finest": True,
      "model.dtype": "bfloat16",
    },
  )
  module = build_run_network(config, 3)
  assert module.num_classes == 3
  assert module.dtype == "bfloat16"
  keys = {field.name for field in dataclasses.fields(config.model)} - {"name", "dtype"}
  read = {key for key in keys if hasattr(module, key)}
  assert {"gates", "gating", "gate", "gate_finest", "gate_bias_init", "conv"} <= read
  assert all(getattr(module, key) == getattr(config.model, key) for key in read)


def test_options_that_do_not_fit_are_one_line(config):
  config = with_keys(
    config, {"model.name": "dense_dilated", "model.dilation_rates": ((1,), (1,), (1,))}
  )
  with pytest.raises(UserError, match=r"config\.model: dilation_rates of 3 stacks: at most 2"):
    build_run_network(config, 2)


def test_the_patch_of_the_sliding_window_is_one_that_the_network_takes_too(config):
  config = with_keys(config, {"inference.patch": (32, 16, 20)})
  with pytest.raises(
    UserError, match=r"config\.inference\.patch=\(32, 16, 20\): .* is \(32, 16, 16\)"
  ):
    build_run_network(config, 2)


class _Dense(nn.Module):
  patch_multiple = (1, 1, 1)

  @nn.compact
  def __call__(self, x, train):
    return nn.Dense(2)(x), {}


def test_the_start_is_drawn_by_the_seed(config):
  kernels = []
  for seed in (0, 0, 1):
    state = create_state(with_keys(config, {"seed": seed}), _Dense())
    kernels.append(state.params["Dense_0"]["kernel"])
  np.testing.assert_array_equal(kernels[0], kernels[1])
  assert (kernels[0] != kernels[2]).all()
