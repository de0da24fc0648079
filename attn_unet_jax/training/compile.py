"""Compiles the step for the devices of all hosts: the batch is divided, the state is on each.

With `jit` the program is written for the global batch and XLA divides it over a mesh: the patches
over its axis `data`, and every patch, along X, over `space`; what a convolution or an upsampling
needs of a neighbour's part, the halo, XLA exchanges. Loss and gradient each place along `data`
computes for its own patches, with the batch's statistics unless they are to be local, and their
mean is taken in float32; losses that are no mean of their parts' XLA divides like the rest. A patch
is cut by each device that holds a part of it, and only that part is gathered and augmented
there. With `pmap` every device runs the program on its own patches, and statistics, gradients and
loss are averaged. Both give the same result, and both take and give the same state: an ordinary
tree with a copy on every device. On one device the two are the same plain program.

Several hosts (`hosts.py`) run the `jit` program together, over all their devices.
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
  """`(state, feed) -> (state, outcome)`, one compiled program; the state passed in is consumed.

  Args:
    recipe: what the training reads.
    module: the network.
    streamed: whether a streaming source feeds the step, by way of `placement`. Else the feed is a
      resident set, and to be `spread` like the state; both results are spread.
    present: see `devices`.

  Raises:
    UserError: see `devices` and `check_patch`.
  """
  there = select_devices(recipe, present)
  check_patch(recipe, module)
  if len(there) == 1:
    return jax.jit(lambda state, feed: train_step(recipe, module, state, feed), donate_argnums=0)
  compile_for = _compile_with_jit if recipe.parallel.mode == "jit" else _compile_with_pmap
  return compile_for(recipe, module, make_mesh(recipe, there), streamed)


def _compile_with_jit(
  recipe: TrainingRecipe, module: nn.Module, mesh: Mesh, streamed: bool
) -> Step:
  everywhere, divided = NamedSharding(mesh, EVERYWHERE), NamedSharding(mesh, BY_SAMPLE)
  in_space = NamedSharding(mesh, BY_SAMPLE_AND_X)
  if mesh.shape[SPACE_AXIS] > 1 and getattr(module, "conv", None) == "auto":
    module = module.clone(conv="divided")
  shares = mesh.shape[DATA_AXIS]
  by_share = shares > 1 and is_mean_of_parts(recipe.loss)
  if by_share and recipe.parallel.batch_norm == "global" and hasattr(module, "batch_axis"):
    module = module.clone(batch_axis=DATA_AXIS)

  def share(drawn: Drawn) -> Drawn:
    """All patches still; but whatever is made of them is made where they are."""
    return jax.lax.with_sharding_constraint(drawn, divided)

  def place(batch: NetworkInput) -> NetworkInput:
    return jax.lax.with_sharding_constraint(batch, in_space)

  def averaged(of_share: GradientFunction) -> GradientFunction:
    """Each place along `data` differentiates for itself; XLA would sum up in the compute type."""

    def own(params: Any, *rest: Any) -> Any:
      return jax.lax.pmean(
        of_share(jax.lax.pcast(params, DATA_AXIS, to="varying"), *rest), DATA_AXIS
      )

    specs = (EVERYWHERE, EVERYWHERE, EVERYWHERE, BY_SAMPLE)
    return jax.shard_map(
      own, mesh=mesh, in_specs=specs, out_specs=EVERYWHERE, axis_names={DATA_AXIS}
    )

  if by_share:
    division = BatchPartition(share, shares, place, averaged)
  else:
    local = recipe.parallel.batch_norm == "local"
    division = BatchPartition(share, shares, place, norm_groups=shares if local else 1)

  def step(state: TrainState, feed: StepInput) -> tuple[TrainState, StepMetrics]:
    return train_step(recipe, module, state, feed, division)

  feeds: Any = everywhere
  if streamed:
    by_part: Any = NamedSharding(mesh, BY_PART_AND_SAMPLE)
    feeds = StreamedBatch(feeds, by_part)

  return jax.jit(step, in_shardings=(everywhere, feeds), out_shardings=everywhere, donate_argnums=0)


def _compile_with_pmap(
  recipe: TrainingRecipe, module: nn.Module, mesh: Mesh, streamed: bool
) -> Step:
  count = mesh.size
  size = recipe.train.batch_size // recipe.train.accumulate // count
  if recipe.parallel.batch_norm == "global" and hasattr(module, "batch_axis"):
    module = module.clone(batch_axis=DATA_AXIS)

  def mean(of_share: GradientFunction) -> GradientFunction:
    return lambda *arguments: jax.lax.pmean(of_share(*arguments), DATA_AXIS)

  def step(state: TrainState, feed: StepInput, part: jax.Array) -> tuple[TrainState, StepMetrics]:
    def share(drawn: Drawn) -> Drawn:
      if not isinstance(drawn, BatchSample):
        return drawn  # each device was fed its own blocks
      return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, part * size, size), drawn)

    return train_step(recipe, module, state, feed, BatchPartition(share, reduce_mean=mean))

  feeds: Any = StreamedBatch(None, 0) if streamed else None  # type: ignore[arg-type]
  mapped = jax.pmap(
    step,
    DATA_AXIS,
    in_axes=(None, feeds, 0),
    out_axes=None,
    devices=list(mesh.devices.flat),
    donate_argnums=0,
  )
  parts = jax.device_put(np.arange(count), NamedSharding(mesh, BY_SAMPLE))
  return lambda state, feed: mapped(state, feed, parts)
