"""The state of a training, as the one tree that a checkpoint holds."""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import struct
from jax.interpreters.partial_eval import dce_jaxpr

from attn_unet_jax.models import build
from attn_unet_jax.training.optimizer import build_optimizer
from attn_unet_jax.training.options import TrainingRecipe

# The default kind of key takes 30 s to compile for a hundred parameters on two CPU cores.
_KEY = "rbg"


class TrainState(struct.PyTreeNode):
  """A state of the training, with all values that a step changes.

  Attributes:
    step: the number of steps done, int32.
    params: the parameters.
    batch_stats: the batch-norm statistics; {} for a network without any.
    opt_state: the state of the optimiser.
    ema: the moving average of parameters and statistics, in a dict of these names; None if
      `optimizer.ema_decay` is 0.
    skipped: the number of steps whose update was left out, int32.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  ema: dict[str, Any] | None = None
  skipped: Any = np.int32(0)

  @property
  def variables(self) -> dict[str, Any]:
    """Returns the variables for use outside training: the averages, if there are any."""
    return self.ema or {"params": self.params, "batch_stats": self.batch_stats}


def create_state(recipe: TrainingRecipe, module: nn.Module) -> TrainState:
  """Creates the state before the first step, on the first device of this process.

  The parameters are drawn on the host, so a seed gives equal ones whatever the devices are.
  """
  traced = _trace_initialisation(module)
  jaxpr, _ = dce_jaxpr(traced.jaxpr.jaxpr, [True] * len(traced.jaxpr.out_avals), instantiate=True)
  with jax.default_device(_get_host_device()):
    key = jax.random.key(recipe.seed, impl=_KEY)
    # By operations, of which many are alike: one program of all would take XLA half a minute.
    leaves = jax.core.eval_jaxpr(jaxpr, traced.jaxpr.consts, key)
    variables = jax.tree.unflatten(jax.tree.structure(traced.out_info), leaves)
    state = make_initial_state(recipe, variables)
  result: TrainState = jax.device_put(state, jax.local_devices()[0])
  return result


def abstract_state(recipe: TrainingRecipe, module: nn.Module) -> TrainState:
  """Returns the shapes and types of the state without computing it."""
  result: TrainState = jax.eval_shape(
    lambda variables: make_initial_state(recipe, variables), _trace_initialisation(module).out_info
  )
  return result


@functools.lru_cache(maxsize=1)
def _trace_initialisation(module: nn.Module) -> jax.stages.Traced:
  """Traces the function that draws a network's parameters from a key.

  Tracing is slow and its result is needed more than once, hence the cache.
  """
  # Parameters depend neither on the patch nor on how convolutions are computed. So this takes the
  # smallest patch of the network, and the form that is traced in a quarter of the time.
  shape = (1, *build.nearest_patch(module, (1, 1, 1)), 1)
  traced_module = module.clone(conv="native") if hasattr(module, "conv") else module
  # `lazy_init` would leave out what is computed of the image, but traces for longer.
  initialise = jax.jit(lambda key: traced_module.init(key, jnp.zeros(shape), train=False))
  return initialise.trace(jax.eval_shape(lambda: jax.random.key(0, impl=_KEY)))


def _get_host_device() -> jax.Device:
  """Returns the CPU, or the first device where JAX may not use the CPU."""
  try:
    return jax.local_devices(backend="cpu")[0]
  except RuntimeError:  # JAX_PLATFORMS names the accelerator alone
    return jax.local_devices()[0]


def make_initial_state(recipe: TrainingRecipe, variables: Mapping[str, Any]) -> TrainState:
  """Makes the state before the first step from given parameters and batch statistics."""
  # In one program, since each kind of zeros would be one too.
  result: TrainState = jax.jit(functools.partial(_begin, recipe))(dict(variables))
  return result


def _begin(recipe: TrainingRecipe, variables: Mapping[str, Any]) -> TrainState:
  params, batch_stats = variables["params"], variables.get("batch_stats", {})
  variables_to_average = {"params": params, "batch_stats": batch_stats}
  # A copy, since a step consumes the buffers of both and they must not be shared.
  ema = jax.tree.map(jnp.copy, variables_to_average) if recipe.optimizer.ema_decay else None
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    batch_stats=batch_stats,
    opt_state=build_optimizer(recipe).init(params),
    ema=ema,
    skipped=jnp.zeros((), jnp.int32),
  )
