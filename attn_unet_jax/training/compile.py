"""Compiles the step for the devices of all hosts, which divide the batch and replicate the state.

With `jit` the program is written for the global batch and XLA divides it over a mesh: the patches
over its axis `data`, and each patch along X over its axis `space`. XLA exchanges the halo, the part
of a neighbour's patch that a convolution or an upsampling needs. Each shard along `data` computes
loss and gradient of its own patches, with the statistics of the whole batch unless they are to be
local; the mean over the shards is taken in float32. A loss that is not the mean of the losses of
its parts is divided by XLA like the rest. Each device that holds a part of a patch gathers and
augments that part only.

With `pmap` every device runs the program on its own patches, and statistics, gradients and loss are
averaged. Both modes compute equal results and use one kind of state: an ordinary tree with a copy
on every device. On a single device both are one plain program. Several hosts (`runtime/hosts.py`)
run the `jit` program together, over all their devices.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import (
  Mesh,
  NamedSharding,
)

from attn_unet_jax.patches.batch import Drawn, NetworkInput, StepInput, StreamedBatch
from attn_unet_jax.patches.schedule import BatchSample
from attn_unet_jax.training.divisible import is_mean_of_parts
from attn_unet_jax.training.mesh import (
  BY_PART_AND_SAMPLE,
  BY_SAMPLE,
  BY_SAMPLE_AND_X,
  DATA_AXIS,
  EVERYWHERE,
  SPACE_AXIS,
  check_convolutions,
  check_patch,
  make_mesh,
  select_devices,
)
from attn_unet_jax.training.options import TrainingRecipe
from attn_unet_jax.training.state import TrainState
from attn_unet_jax.training.step import BatchPartition, GradientFunction, StepMetrics, train_step

Step = Callable[[TrainState, StepInput], tuple[TrainState, StepMetrics]]


def compile_step(
  recipe: TrainingRecipe,
  module: nn.Module,
  *,
  streamed: bool = False,
  present: Sequence[jax.Device] = (),
) -> Step:
  """Compiles `(state, input) -> (state, metrics)`; the program consumes the state it is given.

  Args:
    recipe: the options of the training.
    module: the network.
    streamed: whether the input comes from a streaming source, by way of `plan_placement`. Otherwise
      it is a resident set, which must be replicated like the state.
    present: the devices to select from, see `select_devices`.

  Returns:
    the compiled step, whose state and metrics are replicated.

  Raises:
    UserError: see `select_devices`, `check_patch` and `check_convolutions`.
  """
  selected = select_devices(recipe, present)
  check_patch(recipe, module)
  check_convolutions(module, selected)
  # The state is donated everywhere, so that the old and the new one share their memory.
  if len(selected) == 1:
    return jax.jit(lambda state, feed: train_step(recipe, module, state, feed), donate_argnums=0)
  compile_for = _compile_with_jit if recipe.parallel.mode == "jit" else _compile_with_pmap
  return compile_for(recipe, module, make_mesh(recipe, selected), streamed)


def _compile_with_jit(
  recipe: TrainingRecipe, module: nn.Module, mesh: Mesh, streamed: bool
) -> Step:
  """Compiles one program for the global batch, which XLA divides over the mesh."""
  everywhere, by_sample = NamedSharding(mesh, EVERYWHERE), NamedSharding(mesh, BY_SAMPLE)
  by_sample_and_x = NamedSharding(mesh, BY_SAMPLE_AND_X)
  if mesh.shape[SPACE_AXIS] > 1 and getattr(module, "conv", None) == "auto":
    # On the CPU `auto` takes forms that slice along X, the axis that is divided here.
    module = module.clone(conv="divided")
  num_shards = mesh.shape[DATA_AXIS]
  is_sharded = num_shards > 1 and is_mean_of_parts(recipe.loss)
  # A shard sees its own patches only: the network averages the statistics over this axis.
  if is_sharded and recipe.parallel.batch_norm == "global" and hasattr(module, "batch_axis"):
    module = module.clone(batch_axis=DATA_AXIS)

  def take_shard(drawn: Drawn) -> Drawn:
    """Returns all patches, and makes XLA compute what follows where each patch belongs."""
    result: Drawn = jax.lax.with_sharding_constraint(drawn, by_sample)
    return result

  def constrain_batch(batch: NetworkInput) -> NetworkInput:
    """Makes XLA divide the finished batch, and each patch along X."""
    result: NetworkInput = jax.lax.with_sharding_constraint(batch, by_sample_and_x)
    return result

  def average_over_shards(of_shard: GradientFunction) -> GradientFunction:
    """Makes each shard along `data` differentiate by itself, then averages the results."""
    # XLA's own division would add up the gradients in the compute type instead of float32.

    def average_own(params: Any, *rest: Any) -> Any:
      """Averages the results of a shard with those of the others."""
      # As a varying value the parameters get a gradient per shard, not their sum.
      return jax.lax.pmean(
        of_shard(jax.lax.pcast(params, DATA_AXIS, to="varying"), *rest), DATA_AXIS
      )

    specs = (EVERYWHERE, EVERYWHERE, EVERYWHERE, BY_SAMPLE)
    return jax.shard_map(
      average_own, mesh=mesh, in_specs=specs, out_specs=EVERYWHERE, axis_names={DATA_AXIS}
    )

  if is_sharded:
    partition = BatchPartition(take_shard, num_shards, constrain_batch, average_over_shards)
  else:
    local = recipe.parallel.batch_norm == "local"
    # XLA sees the whole batch here, so local statistics need groups within the program.
    partition = BatchPartition(
      take_shard, num_shards, constrain_batch, norm_groups=num_shards if local else 1
    )

  def run_step(state: TrainState, feed: StepInput) -> tuple[TrainState, StepMetrics]:
    """Runs the step on the global batch."""
    return train_step(recipe, module, state, feed, partition)

  feed_specs: Any = everywhere
  if streamed:
    by_part: Any = NamedSharding(mesh, BY_PART_AND_SAMPLE)
    feed_specs = StreamedBatch(feed_specs, by_part)

  return jax.jit(
    run_step, in_shardings=(everywhere, feed_specs), out_shardings=everywhere, donate_argnums=0
  )


def _compile_with_pmap(
  recipe: TrainingRecipe, module: nn.Module, mesh: Mesh, streamed: bool
) -> Step:
  """Compiles one program per device, each with its own patches."""
  count = mesh.size
  size = recipe.train.batch_size // recipe.train.accumulate // count
  if recipe.parallel.batch_norm == "global" and hasattr(module, "batch_axis"):
    module = module.clone(batch_axis=DATA_AXIS)

  def average_over_devices(of_shard: GradientFunction) -> GradientFunction:
    """Averages what each device computes of its own patches."""
    return lambda *arguments: jax.lax.pmean(of_shard(*arguments), DATA_AXIS)

  def run_step(
    state: TrainState, feed: StepInput, number: jax.Array
  ) -> tuple[TrainState, StepMetrics]:
    """Runs the step on the patches of the device of this number."""

    def take_shard(drawn: Drawn) -> Drawn:
      """Returns the patches of this device."""
      # Each device draws the whole batch and keeps its own part of it: what is drawn then does not
      # depend on the number of devices.
      if not isinstance(drawn, BatchSample):
        return drawn  # streamed blocks are on the device that trains on them
      result: Drawn = jax.tree.map(
        lambda x: jax.lax.dynamic_slice_in_dim(x, number * size, size), drawn
      )
      return result

    return train_step(
      recipe, module, state, feed, BatchPartition(take_shard, reduce_mean=average_over_devices)
    )

  feed_specs: Any = StreamedBatch(None, 0) if streamed else None  # type: ignore[arg-type]
  run_on_devices = jax.pmap(
    run_step,
    DATA_AXIS,
    in_axes=(None, feed_specs, 0),
    out_axes=None,
    devices=list(mesh.devices.flat),
    donate_argnums=0,
  )
  # On the devices from the start, since the loop forbids copies that nobody asked for.
  device_numbers = jax.device_put(np.arange(count), NamedSharding(mesh, BY_SAMPLE))
  return lambda state, feed: run_on_devices(state, feed, device_numbers)
