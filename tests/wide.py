"""Float64 throughout: parameters and statistics too, which networks declare as float32."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from attn_unet_jax.training.options import TrainingRecipe
from attn_unet_jax.training.state import TrainState
from attn_unet_jax.training.state import make_initial_state as real


def start(recipe: TrainingRecipe, variables: Mapping[str, Any]) -> TrainState:
  """In the place of `state.make_initial_state`: the state before the first step, in float64."""
  return real(recipe, jax.tree.map(lambda x: x.astype(jnp.float64), variables))
