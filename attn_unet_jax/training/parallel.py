"""Compiles the step for the devices of one host: the batch is divided, all else is on each.

With `jit` the program is written for the global batch and XLA divides it over a mesh: batch
statistics, losses and gradients are global by themselves. With `pmap` every device runs the program
on its own part, and statistics, gradients and loss are averaged. Both give the same result, and
both take and give the same state: an ordinary tree with a copy on every device. On one device the
two are the same plain program.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from attn_unet_jax.data.resident import Resident
from attn_unet_jax.data.schedule import Draw
from attn_unet_jax.errors import UserError
from attn_unet_jax.losses import OVER_THE_BATCH
from attn_unet_jax.training.state import TrainState
from attn_unet_jax.training.step import Division, Outcome, train_step

Step = Callable[[TrainState, Resident], tuple[TrainState, Outcome]]
Tree = TypeVar("Tree")

_AXIS = "data"
_EVERYWHERE = PartitionSpec()
_DIVIDED = PartitionSpec(_AXIS)


def devices(config: ConfigDict) -> list[jax.Device]:
  """The devices of this host that divide the batch.

  Raises:
    UserError: there are not as many, the batch does not divide by them and by
      `train.accumulate`, or it is divided and the loss is not the mean of its parts' losses.
  """
  present, count = jax.local_devices(), config.parallel.data or jax.local_device_count()
  if count > len(present):
    raise UserError(
      f"config.parallel.data={count}: this host has {len(present)} "
      f"{present[0].platform} device(s); ask for at most {len(present)}, or 0 for all"
    )
  batch, parts = config.train.batch_size, config.train.accumulate
  if batch % parts:
    raise UserError(
      f"config.train.accumulate={parts}: must divide config.train.batch_size={batch} without rest"
    )
  if batch // parts % count:
    fits = max(n for n in range(1, count + 1) if batch // parts % n == 0)
    of = f" in {parts} parts" if parts > 1 else ""
    raise UserError(
      f"config.train.batch_size={batch}: cannot be divided{of} over {count} devices; make it a "
      f"multiple of {parts * count}, or use fewer with --config.parallel.data={fits}"
    )
  if config.parallel.mode == "pmap" and count > 1:
    _check_loss(config, "config.parallel.mode='pmap'", "--config.parallel.mode=jit")
  if parts > 1:
    _check_loss(config, f"config.train.accumulate={parts}", "--config.train.accumulate=1")
  return present[:count]


def _check_loss(config: ConfigDict, needs: str, instead: str) -> None:
  for name in sorted(OVER_THE_BATCH):
    if config.loss[name]:
      raise UserError(
        f"config.loss.{name}={config.loss[name]}: over a divided batch it is not the mean of its "
        f"parts, as {needs} needs; use {instead}"
      )


def spread(config: ConfigDict, tree: Tree) -> Tree:
  """The tree with a copy on each of the run's devices; as it is where there is one.

  Raises:
    UserError: see `devices`.
  """
  there = devices(config)
  return tree if len(there) == 1 else jax.device_put(tree, NamedSharding(_mesh(there), _EVERYWHERE))


def on_first_device(tree: Tree) -> Tree:
  """The first device's copy of a tree that was `spread`; shares its memory."""
  return jax.tree.map(lambda x: x if len(x.devices()) == 1 else x.addressable_data(0), tree)


def compile_step(config: ConfigDict, module: nn.Module) -> Step:
  """`(state, data) -> (state, outcome)`, one compiled program; the state passed in is consumed.

  Both arguments are to be `spread`, and both results are.

  Raises:
    UserError: see `devices`.
  """
  there = devices(config)
  if len(there) == 1:
    return jax.jit(lambda state, data: train_step(config, module, state, data), donate_argnums=0)
  compile_for = _jit if config.parallel.mode == "jit" else _pmap
  return compile_for(config, module, _mesh(there))


def _mesh(there: list[jax.Device]) -> Mesh:
  return jax.make_mesh((len(there),), (_AXIS,), axis_types=(AxisType.Auto,), devices=there)


def _jit(config: ConfigDict, module: nn.Module, mesh: Mesh) -> Step:
  everywhere, divided = NamedSharding(mesh, _EVERYWHERE), NamedSharding(mesh, _DIVIDED)

  def share(draw: Draw) -> Draw:
    """All patches still; but whatever is made of them is made where they are."""
    return jax.lax.with_sharding_constraint(draw, divided)

  def step(state: TrainState, data: Resident) -> tuple[TrainState, Outcome]:
    return train_step(config, module, state, data, Division(share))

  return jax.jit(step, in_shardings=everywhere, out_shardings=everywhere, donate_argnums=0)


def _pmap(config: ConfigDict, module: nn.Module, mesh: Mesh) -> Step:
  count = mesh.size
  size = config.train.batch_size // config.train.accumulate // count
  if hasattr(module, "batch_axis"):
    module = module.clone(batch_axis=_AXIS)

  def mean(tree: Any) -> Any:
    return jax.lax.pmean(tree, _AXIS)

  def step(state: TrainState, data: Resident, part: jax.Array) -> tuple[TrainState, Outcome]:
    def share(draw: Draw) -> Draw:
      own = (jax.lax.dynamic_slice_in_dim(x, part * size, size) for x in draw)
      return Draw(*own)

    return train_step(config, module, state, data, Division(share, mean))

  mapped = jax.pmap(
    step,
    _AXIS,
    in_axes=(None, None, 0),
    out_axes=None,
    devices=list(mesh.devices.flat),
    donate_argnums=0,
  )
  parts = jax.device_put(np.arange(count), NamedSharding(mesh, _DIVIDED))
  return lambda state, data: mapped(state, data, parts)
