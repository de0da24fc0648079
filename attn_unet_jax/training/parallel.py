"""Compiles the step: `jit` with the state donated, so that its buffers are reused in place."""

from collections.abc import Callable

import jax
from flax import linen as nn
from ml_collections import ConfigDict

from attn_unet_jax.data.resident import Resident
from attn_unet_jax.training.state import TrainState
from attn_unet_jax.training.step import train_step

Step = Callable[[TrainState, Resident], tuple[TrainState, jax.Array]]


def compile_step(config: ConfigDict, module: nn.Module) -> Step:
  """`(state, data) -> (state, loss)`, one compiled program; the state passed in is consumed."""
  return jax.jit(lambda state, data: train_step(config, module, state, data), donate_argnums=0)
