"""All that training changes, as one tree: it is what a checkpoint holds."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct

from attn_unet_jax.models import build
from attn_unet_jax.training.optimizer import build_optimizer
from attn_unet_jax.training.options import TrainingRecipe

# The default kind of key takes 30 s to compile for a hundred parameters on two CPU cores.
_KEY = "rbg"


class TrainState(struct.PyTreeNode):
  """Steps done (int32), parameters, batch-norm statistics (none: {}), optimiser state.

  `ema` is the moving average of parameters and statistics, in a dict of these names, or None where
  `optimizer.ema_decay` is 0; `skipped` (int32) counts the steps whose update was left out.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  ema: dict[str, Any] | None = None
  skipped: Any = np.int32(0)

  @property
  def variables(self) -> dict[str, Any]:
    """What `network.apply` takes outside training: the averages, where they are kept."""
    return self.ema or {"params": self.params, "batch_stats": self.batch_stats}


def create_state(recipe: TrainingRecipe, module: nn.Module) -> TrainState:
  """The state before the first step, on this process's first device.

  It is drawn on the host: the same parameters for a seed, whatever the devices.
  """
  key = jax.device_put(jax.random.key(recipe.seed, impl=_KEY), _get_host_device())
  variables = _trace_initialisation(module).lower().compile()(key)
  return jax.device_put(make_initial_state(recipe, variables), jax.local_devices()[0])


def abstract_state(recipe: TrainingRecipe, module: nn.Module) -> TrainState:
  """Shapes and types of the state; computes nothing."""
  return jax.eval_shape(
    lambda variables: make_initial_state(recipe, variables), _trace_initialisation(module).out_info
  )


@functools.lru_cache(maxsize=1)
def _trace_initialisation(module: nn.Module) -> jax.stages.Traced:
  """What draws a network's parameters from a key, traced: slow, and wanted more than once."""
  # Parameters depend neither on the patch nor on how convolutions are computed: the least patch
  # that the network takes, and the form that is traced in a quarter of the time.
  image = jax.ShapeDtypeStruct((1, *build.nearest_patch(module, (1, 1, 1)), 1), jnp.float32)
  quick = module.clone(conv="native") if hasattr(module, "conv") else module
  draw = jax.jit(
    lambda key: quick.lazy_init(key, image, train=False),
    in_shardings=jax.sharding.SingleDeviceSharding(_get_host_device()),
  )
  # The key is an argument, else XLA would draw all parameters while it compiles.
  return draw.trace(jax.eval_shape(lambda: jax.random.key(0, impl=_KEY)))


def _get_host_device() -> jax.Device:
  try:
    return jax.local_devices(backend="cpu")[0]
  except RuntimeError:  # JAX_PLATFORMS names the accelerator alone
    return jax.local_devices()[0]


def make_initial_state(recipe: TrainingRecipe, variables: Mapping[str, Any]) -> TrainState:
  """The state before the first step, of given parameters and batch statistics."""
  params, batch_stats = variables["params"], variables.get("batch_stats", {})
  averaged = {"params": params, "batch_stats": batch_stats}
  # Of its own: a step consumes the buffers of both.
  ema = jax.tree.map(jnp.copy, averaged) if recipe.optimizer.ema_decay else None
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=batch_stats,
    opt_state=build_optimizer(recipe).init(params),
    ema=ema,
    skipped=jnp.zeros((), jnp.int32),
  )
