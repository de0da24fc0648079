"""Compiles the step for the devices of one host: the batch is divided, all else is on each.

With `jit` the program is written for the global batch and XLA divides it over a mesh: batch
statistics, losses and gradients are global by themselves. With `pmap` every device runs the program
on its own part, and statistics, gradients and loss are averaged. Both give the same result, and
both take and give the same state: an ordinary tree with a copy on every device. On one device the
two are the same plain program.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from attn_unet_jax.data.patches import Drawn, Fed, Feed
from attn_unet_jax.data.resident import Block
from attn_unet_jax.data.schedule import Draw
from attn_unet_jax.errors import UserError
from attn_unet_jax.losses import OVER_THE_BATCH
from attn_unet_jax.training.state import TrainState
from attn_unet_jax.training.step import Division, Outcome, train_step

Step = Callable[[TrainState, Feed], tuple[TrainState, Outcome]]
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


class Placement(NamedTuple):
  """How streamed blocks reach the devices.

  Attributes:
    rows: the places of the global batch that this host makes, in the order that `put` takes.
    put: the number of a step and its blocks, NumPy `[len(rows), ...]`, onto this host's devices.
  """

  rows: Sequence[int]
  put: Callable[[int, Block], Fed]


def placement(config: ConfigDict) -> Placement:
  """Where the patches of a batch go; no patch goes to a device that does not train on it.

  Raises:
    UserError: see `devices`.
  """
  there = devices(config)
  mesh, table = _mesh(there), _table(config, len(there))
  divided = _DIVIDED if table.ndim == 3 else PartitionSpec(None, _AXIS)
  sharding, everywhere = NamedSharding(mesh, divided), NamedSharding(mesh, _EVERYWHERE)
  local = sharding.addressable_devices_indices_map(table.shape).values()
  rows = np.unique(np.concatenate([table[index].ravel() for index in local if index is not None]))

  def array(values: np.ndarray) -> jax.Array:
    def piece(index: Any) -> np.ndarray:
      return values[np.searchsorted(rows, table[index[: table.ndim]])]

    return jax.make_array_from_callback((*table.shape, *values.shape[1:]), sharding, piece)

  def put(step: int, blocks: Block) -> Fed:
    number = jax.make_array_from_callback((), everywhere, lambda _: np.int32(step))
    return Fed(number, Block(*map(array, blocks)))

  return Placement(rows.tolist(), put)


def _table(config: ConfigDict, count: int) -> np.ndarray:
  """The places of a batch, as its blocks are fed: [parts, n], with `pmap` [devices, parts, n]."""
  places = np.arange(config.train.batch_size)
  if config.parallel.mode == "pmap" and count > 1:
    return places.reshape(config.train.accumulate, count, -1).swapaxes(0, 1)
  return places.reshape(config.train.accumulate, -1)


def on_first_device(tree: Tree) -> Tree:
  """The first device's copy of a tree that was `spread`; shares its memory."""
  return jax.tree.map(lambda x: x if len(x.devices()) == 1 else x.addressable_data(0), tree)


def compile_step(config: ConfigDict, module: nn.Module) -> Step:
  """`(state, feed) -> (state, outcome)`, one compiled program; the state passed in is consumed.

  The state and a resident set are to be `spread`, what a streaming source feeds to be placed by
  `placement`; both results are spread.

  Raises:
    UserError: see `devices`.
  """
  there = devices(config)
  if len(there) == 1:
    return jax.jit(lambda state, feed: train_step(config, module, state, feed), donate_argnums=0)
  compile_for = _jit if config.parallel.mode == "jit" else _pmap
  return compile_for(config, module, _mesh(there))


def _mesh(there: list[jax.Device]) -> Mesh:
  return jax.make_mesh((len(there),), (_AXIS,), axis_types=(AxisType.Auto,), devices=there)


def _jit(config: ConfigDict, module: nn.Module, mesh: Mesh) -> Step:
  everywhere, divided = NamedSharding(mesh, _EVERYWHERE), NamedSharding(mesh, _DIVIDED)

  def share(drawn: Drawn) -> Drawn:
    """All patches still; but whatever is made of them is made where they are."""
    return jax.lax.with_sharding_constraint(drawn, divided)

  def step(state: TrainState, feed: Feed) -> tuple[TrainState, Outcome]:
    return train_step(config, module, state, feed, Division(share))

  return jax.jit(step, out_shardings=everywhere, donate_argnums=0)


def _pmap(config: ConfigDict, module: nn.Module, mesh: Mesh) -> Step:
  count = mesh.size
  size = config.train.batch_size // config.train.accumulate // count
  if hasattr(module, "batch_axis"):
    module = module.clone(batch_axis=_AXIS)

  def mean(tree: Any) -> Any:
    return jax.lax.pmean(tree, _AXIS)

  def step(state: TrainState, feed: Feed, part: jax.Array) -> tuple[TrainState, Outcome]:
    def share(drawn: Drawn) -> Drawn:
      if not isinstance(drawn, Draw):
        return drawn  # each device was fed its own blocks
      own = (jax.lax.dynamic_slice_in_dim(x, part * size, size) for x in drawn)
      return Draw(*own)

    return train_step(config, module, state, feed, Division(share, mean))

  def mapped(fed: Any) -> Any:
    there = list(mesh.devices.flat)
    return jax.pmap(
      step, _AXIS, in_axes=(None, fed, 0), out_axes=None, devices=there, donate_argnums=0
    )

  parts = jax.device_put(np.arange(count), NamedSharding(mesh, _DIVIDED))
  on_resident, on_fed = mapped(None), mapped(Fed(None, 0))  # type: ignore[arg-type]
  return lambda state, feed: (on_fed if isinstance(feed, Fed) else on_resident)(state, feed, parts)
