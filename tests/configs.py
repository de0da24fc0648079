"""Configs of tests: a small run, and a run with some keys changed."""

from collections.abc import Mapping
from typing import Any

from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.schema import RunConfig

with_keys = replace_keys
# One stack of one layer, and a stride: a third of the time of an Attention U-Net, nearly all of
# which JAX takes to trace it. For commands whose network does not matter.
SMALLEST: Mapping[str, Any] = {
  "model.name": "dense_vnet",
  "model.feature_scale": 2.0,
  "model.dilation_rates": ((1,),),
  "model.channels_kept": 1.0,
  "model.prior_size": 0,
}


def small_config(**changes: Any) -> RunConfig:
  """A run that a test can afford: the network at an eighth of its least width, 16^3 patches."""
  small: Mapping[str, Any] = {
    "model.feature_scale": 32.0,
    "data.dataset": "phantom_ct/tiny",
    "data.spacing_mm": 10.0,
    "data.patch": (16, 16, 16),
    "augment.rotate_deg": (0.0, 0.0, 0.0),
    "augment.scale": (1.0, 1.0),
    "augment.shift": (0.0, 0.0, 0.0),
    "optimizer.learning_rate": 1e-2,
    "optimizer.schedule": "constant",
    "train.epochs": 2,
    "train.steps_per_epoch": 3,
    "train.loss_patches": 2,
    "train.validate_every": 1,
    "train.save_every": 1,
  }
  return with_keys(RunConfig(), {**small, **changes})
