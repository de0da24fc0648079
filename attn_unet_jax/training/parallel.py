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

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import (
  AxisType,
  Mesh,
  NamedSharding,
  PartitionSpec,
  Sharding,
  SingleDeviceSharding,
)
from ml_collections import ConfigDict

from attn_unet_jax.config_rules import check_mean_of_parts, is_mean_of_parts
from attn_unet_jax.data.patches import Batch, Drawn, Fed, Feed
from attn_unet_jax.data.resident import Block
from attn_unet_jax.data.schedule import Draw
from attn_unet_jax.errors import UserError
from attn_unet_jax.training.state import TrainState
from attn_unet_jax.training.step import Division, Outcome, Part, train_step

Step = Callable[[TrainState, Feed], tuple[TrainState, Outcome]]
Tree = TypeVar("Tree")

_DATA, _SPACE = "data", "space"
_EVERYWHERE = PartitionSpec()
_BATCH = PartitionSpec(_DATA)
_BATCH_AND_X = PartitionSpec(_DATA, _SPACE)
_PARTS = PartitionSpec(None, _DATA)  # of a batch that is fed in parts


def devices(config: ConfigDict, present: Sequence[jax.Device] = ()) -> list[jax.Device]:
  """The devices that divide the batch, and along X its patches; those of several hosts are all.

  The config is a valid one: what does not fit on any device is refused there.

  Args:
    config: the run's config.
    present: of these; left out, of all that JAX finds.

  Raises:
    UserError: there are not as many, several hosts or 'all' would leave some out, a part of the
      batch does not divide by them, or `pmap` divides it and the loss is not the mean of its parts'
      losses.
  """
  parallel, present = config.parallel, list(present) or jax.devices()
  data, space = mesh_shape(config, len(present))
  _check_hosts(config)
  if data * space > len(present):
    raise UserError(
      f"config.parallel.data={parallel.data}, config.parallel.space={space}: {data * space} "
      f"devices, and there are {len(present)} {present[0].platform} device(s); ask for a "
      f"product of at most {len(present)}, with data=0 for as many as there are"
    )
  if not parallel.data and len(present) % space:
    raise UserError(
      f"config.parallel.space={space}: does not divide the {len(present)} {present[0].platform} "
      f"devices, all of which config.parallel.data=0 asks for; use --config.parallel.data={data} "
      f"for {data * space} of them, or a space that divides {len(present)}"
    )
  batch, parts = config.train.batch_size, config.train.accumulate
  if batch // parts % data:
    fits = max(n for n in range(1, data + 1) if batch // parts % n == 0)
    of = f" in {parts} parts" if parts > 1 else ""
    raise UserError(
      f"config.train.batch_size={batch}: cannot be divided{of} over {data} devices; make it a "
      f"multiple of {parts * data}, or use fewer with --config.parallel.data={fits}"
    )
  if parallel.mode == "pmap" and data > 1:
    check_mean_of_parts(config, "config.parallel.mode='pmap'", "--config.parallel.mode=jit")
  return present[: data * space]


def mesh_shape(config: ConfigDict, present: int = 0) -> tuple[int, int]:
  """Devices over which the batch, and over which each patch is divided: of so many, or of all."""
  space = config.parallel.space
  return config.parallel.data or max(1, (present or jax.device_count()) // space), space


def name_devices(config: ConfigDict) -> None:
  """Puts their number into the config where batch statistics are each device's own.

  It is part of what is computed then, and a run must go on with as many.
  """
  if config.parallel.batch_norm == "local":
    config.parallel.data = mesh_shape(config)[0]


def parts_alone(config: ConfigDict) -> int:
  """Into how many parts one device takes a batch by itself, to need no more memory than a step.

  A part is what the device trains on; the whole batch where a loss is not the mean of its parts'.
  """
  if not is_mean_of_parts(config):
    return 1
  return config.train.accumulate * mesh_shape(config)[0]


def check_patch(config: ConfigDict, module: nn.Module) -> None:
  """Whether the patch can be divided: every device gets whole voxels of every level of the network.

  A level must also be as long as the kernel: XLA (of jax 0.10) divides shorter ones by gathering
  them, and over a mesh of both axes their gradient comes out wrong.

  Raises:
    UserError: not so; or the network pads nothing, so that its parts would be of several sizes.
  """
  space = config.parallel.space
  if space == 1:
    return
  if not hasattr(module, "kernel_size"):
    raise UserError(
      f"config.parallel.space={space}: {type(module).__name__} does not divide its patches; use "
      "--config.parallel.space=1"
    )
  if any(module.output_margin):
    raise UserError(
      f"config.parallel.space={space}: an unpadded network cannot be divided; use "
      "--config.model.padding=SAME, or --config.parallel.space=1"
    )
  size, coarsest = config.data.patch[0], module.patch_multiple[0]
  least, unit = module.kernel_size * coarsest, coarsest * space
  if size % unit or size < least:
    nearest = unit * max(math.ceil(least / unit), round(size / unit))
    raise UserError(
      f"config.data.patch={config.data.patch}: with config.parallel.space={space} its X must be a "
      f"multiple of {unit} and at least {least}; the nearest is {nearest}"
    )


def _check_hosts(config: ConfigDict) -> None:
  hosts, there = jax.process_count(), jax.device_count()
  if hosts == 1:
    return
  if not jax.distributed.is_initialized():
    raise UserError(f"this is one of {hosts} hosts: start it on each, with --coordinator=auto")
  data, space = mesh_shape(config)
  if data * space != there:
    raise UserError(
      f"config.parallel.data={config.parallel.data}, config.parallel.space={space}: the {hosts} "
      f"hosts have {there} devices together, and all take part; make the product {there}, with "
      "data=0 for as many as there are"
    )
  if config.parallel.mode == "pmap":
    raise UserError("config.parallel.mode='pmap': for one host; use --config.parallel.mode=jit")


def replicated(config: ConfigDict, present: Sequence[jax.Device] = ()) -> Sharding:
  """A copy on each of the run's devices; see `devices`."""
  there = devices(config, present)
  if len(there) == 1:
    return SingleDeviceSharding(there[0])
  return NamedSharding(_mesh(config, there), _EVERYWHERE)


def spread(config: ConfigDict, tree: Tree) -> Tree:
  """The tree with a copy on each of the run's devices; as it is where there is one.

  Args:
    config: the run's config.
    tree: arrays on this host, of the same values on every host.

  Raises:
    UserError: see `devices`.
  """
  there = devices(config)
  if len(there) == 1:
    return tree
  sharding = replicated(config)
  if jax.process_count() == 1:
    return jax.device_put(tree, sharding)

  def joined(x: jax.Array) -> jax.Array:  # every host puts its own copy onto its own devices
    copies = [jax.device_put(x, device) for device in sharding.addressable_devices]
    return jax.make_array_from_single_device_arrays(x.shape, sharding, copies)

  return jax.tree.map(joined, tree)


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
  mesh, table = _mesh(config, there), _table(config, len(there))
  sharding = NamedSharding(mesh, _BATCH if table.ndim == 3 else _PARTS)
  everywhere = NamedSharding(mesh, _EVERYWHERE)
  local = sharding.addressable_devices_indices_map(table.shape).values()
  rows = np.unique(np.concatenate([table[index].ravel() for index in local if index is not None]))

  def array(values: np.ndarray) -> jax.Array:
    def piece(index: Any) -> np.ndarray:
      return values[np.searchsorted(rows, table[index[: table.ndim]])]

    return jax.make_array_from_callback((*table.shape, *values.shape[1:]), sharding, piece)

  def put(step: int, blocks: Block) -> Fed:
    number = jax.make_array_from_callback((), everywhere, lambda _: np.int32(step))
    return Fed(number, jax.tree.map(array, blocks))

  return Placement(rows.tolist(), put)


def _table(config: ConfigDict, count: int) -> np.ndarray:
  """The places of a batch, as its blocks are fed: [parts, n], with `pmap` [devices, parts, n]."""
  places = np.arange(config.train.batch_size)
  if config.parallel.mode == "pmap" and count > 1:
    return places.reshape(config.train.accumulate, count, -1).swapaxes(0, 1)
  return places.reshape(config.train.accumulate, -1)


def on_first_device(tree: Tree) -> Tree:
  """The copy of this host's first device, of a tree that was `spread`; shares its memory."""
  return jax.tree.map(lambda x: x if len(x.devices()) == 1 else x.addressable_data(0), tree)


def compile_step(
  config: ConfigDict,
  module: nn.Module,
  *,
  streamed: bool = False,
  present: Sequence[jax.Device] = (),
) -> Step:
  """`(state, feed) -> (state, outcome)`, one compiled program; the state passed in is consumed.

  Args:
    config: the run's config.
    module: the network.
    streamed: whether a streaming source feeds the step, by way of `placement`. Else the feed is a
      resident set, and to be `spread` like the state; both results are spread.
    present: see `devices`.

  Raises:
    UserError: see `devices` and `check_patch`.
  """
  there = devices(config, present)
  check_patch(config, module)
  if len(there) == 1:
    return jax.jit(lambda state, feed: train_step(config, module, state, feed), donate_argnums=0)
  compile_for = _jit if config.parallel.mode == "jit" else _pmap
  return compile_for(config, module, _mesh(config, there), streamed)


def _mesh(config: ConfigDict, there: list[jax.Device]) -> Mesh:
  shape, axis_types = mesh_shape(config, len(there)), (AxisType.Auto,) * 2
  return jax.make_mesh(shape, (_DATA, _SPACE), axis_types=axis_types, devices=there)


def _jit(config: ConfigDict, module: nn.Module, mesh: Mesh, streamed: bool) -> Step:
  everywhere, divided = NamedSharding(mesh, _EVERYWHERE), NamedSharding(mesh, _BATCH)
  in_space = NamedSharding(mesh, _BATCH_AND_X)
  if mesh.shape[_SPACE] > 1 and config.model.conv == "auto":
    module = module.clone(conv="divided")
  shares = mesh.shape[_DATA]
  by_share = shares > 1 and is_mean_of_parts(config)
  if by_share and config.parallel.batch_norm == "global" and hasattr(module, "batch_axis"):
    module = module.clone(batch_axis=_DATA)

  def share(drawn: Drawn) -> Drawn:
    """All patches still; but whatever is made of them is made where they are."""
    return jax.lax.with_sharding_constraint(drawn, divided)

  def place(batch: Batch) -> Batch:
    return jax.lax.with_sharding_constraint(batch, in_space)

  def averaged(of_share: Part) -> Part:
    """Each place along `data` differentiates for itself; XLA would sum up in the compute type."""

    def own(params: Any, *rest: Any) -> Any:
      return jax.lax.pmean(of_share(jax.lax.pcast(params, _DATA, to="varying"), *rest), _DATA)

    specs = (_EVERYWHERE, _EVERYWHERE, _EVERYWHERE, _BATCH)
    return jax.shard_map(own, mesh=mesh, in_specs=specs, out_specs=_EVERYWHERE, axis_names={_DATA})

  if by_share:
    division = Division(share, shares, place, averaged)
  else:
    local = config.parallel.batch_norm == "local"
    division = Division(share, shares, place, groups=shares if local else 1)

  def step(state: TrainState, feed: Feed) -> tuple[TrainState, Outcome]:
    return train_step(config, module, state, feed, division)

  feeds: Any = Fed(everywhere, NamedSharding(mesh, _PARTS)) if streamed else everywhere  # type: ignore[arg-type]

  return jax.jit(step, in_shardings=(everywhere, feeds), out_shardings=everywhere, donate_argnums=0)


def _pmap(config: ConfigDict, module: nn.Module, mesh: Mesh, streamed: bool) -> Step:
  count = mesh.size
  size = config.train.batch_size // config.train.accumulate // count
  if config.parallel.batch_norm == "global" and hasattr(module, "batch_axis"):
    module = module.clone(batch_axis=_DATA)

  def mean(of_share: Part) -> Part:
    return lambda *arguments: jax.lax.pmean(of_share(*arguments), _DATA)

  def step(state: TrainState, feed: Feed, part: jax.Array) -> tuple[TrainState, Outcome]:
    def share(drawn: Drawn) -> Drawn:
      if not isinstance(drawn, Draw):
        return drawn  # each device was fed its own blocks
      return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, part * size, size), drawn)

    return train_step(config, module, state, feed, Division(share, mean=mean))

  feeds: Any = Fed(None, 0) if streamed else None  # type: ignore[arg-type]
  mapped = jax.pmap(
    step,
    _DATA,
    in_axes=(None, feeds, 0),
    out_axes=None,
    devices=list(mesh.devices.flat),
    donate_argnums=0,
  )
  parts = jax.device_put(np.arange(count), NamedSharding(mesh, _BATCH))
  return lambda state, feed: mapped(state, feed, parts)
