"""Selects the devices that train together, arranges them in a mesh and copies trees to them."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeVar

import jax
from flax import linen as nn
from jax.sharding import (
  AxisType,
  Mesh,
  NamedSharding,
  PartitionSpec,
  Sharding,
  SingleDeviceSharding,
)

from attn_unet_jax.models.ops.onednn_conv import require_onednn
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.divisible import check_mean_of_parts, is_mean_of_parts
from attn_unet_jax.training.options import TrainingRecipe

Recipe = TypeVar("Recipe", bound=TrainingRecipe)
Tree = TypeVar("Tree")

DATA_AXIS, SPACE_AXIS = "data", "space"

EVERYWHERE = PartitionSpec()
BY_SAMPLE = PartitionSpec(DATA_AXIS)
BY_SAMPLE_AND_X = PartitionSpec(DATA_AXIS, SPACE_AXIS)
BY_PART_AND_SAMPLE = PartitionSpec(None, DATA_AXIS)  # of a batch that arrives in parts


def select_devices(recipe: TrainingRecipe, present: Sequence[jax.Device] = ()) -> list[jax.Device]:
  """Selects the devices that divide the batch, and the X axis of its patches.

  With several hosts these are all devices. The config has been validated already, so only what
  depends on the number of devices is checked here.

  Args:
    recipe: the options of the training.
    present: the devices to select from; by default all that JAX finds.

  Raises:
    UserError: there are too few devices, several hosts or 'all' would leave some out, a part of the
      batch is not divisible by them, or `pmap` divides a loss that is not the mean of the losses of
      its parts.
  """
  parallel, present = recipe.parallel, list(present) or jax.devices()
  data, space = mesh_shape(recipe, len(present))
  _check_hosts(recipe)
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
  batch, parts = recipe.train.batch_size, recipe.train.accumulate
  if batch // parts % data:
    # The message names the most devices that would work.
    fits = max(n for n in range(1, data + 1) if batch // parts % n == 0)
    of = f" in {parts} parts" if parts > 1 else ""
    raise UserError(
      f"config.train.batch_size={batch}: cannot be divided{of} over {data} devices; make it a "
      f"multiple of {parts * data}, or use fewer with --config.parallel.data={fits}"
    )
  # `pmap` averages the losses of the devices.
  if parallel.mode == "pmap" and data > 1:
    check_mean_of_parts(recipe.loss, "config.parallel.mode='pmap'", "--config.parallel.mode=jit")
  return present[: data * space]


def mesh_shape(recipe: TrainingRecipe, present: int = 0) -> tuple[int, int]:
  """Returns the numbers of devices that divide the batch, and that divide each patch.

  Args:
    recipe: the options of the training.
    present: the number of devices to use; 0: all that JAX finds.
  """
  space = recipe.parallel.space
  # At least 1, so that `select_devices` can refuse too large a `space` with its own message.
  return recipe.parallel.data or max(1, (present or jax.device_count()) // space), space


def pin_device_count(recipe: Recipe) -> Recipe:
  """Returns the recipe with a fixed number of devices if batch statistics are local to a device.

  The number then changes what is computed, so a run must be resumed with as many devices.
  """
  if recipe.parallel.batch_norm != "local":
    return recipe
  data = mesh_shape(recipe)[0]
  return dataclasses.replace(recipe, parallel=dataclasses.replace(recipe.parallel, data=data))


def num_microbatches_on_one_device(recipe: TrainingRecipe) -> int:
  """Returns the number of parts in which one device computes a whole batch by itself.

  One part is as large as what the device trains on at a time, so it needs no more memory than a
  step. If the loss is not the mean of the losses of its parts, the batch stays whole.
  """
  if not is_mean_of_parts(recipe.loss):
    return 1
  return recipe.train.accumulate * mesh_shape(recipe)[0]


def check_patch(recipe: TrainingRecipe, module: nn.Module) -> None:
  """Checks that `parallel.space` devices can divide the patch along X.

  Raises:
    UserError: a device would get a fraction of a voxel at some level of the network, or less than
      a kernel; the network cannot divide its patches; or it is unpadded, so that its parts would
      differ in size.
  """
  space = recipe.parallel.space
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
  # A level must be as long as the kernel: XLA (of jax 0.10) divides shorter ones by gathering them,
  # and over a mesh of both axes their gradient comes out wrong.
  size, coarsest = recipe.data.patch[0], module.patch_multiple[0]
  least, unit = module.kernel_size * coarsest, coarsest * space
  if size % unit or size < least:
    nearest = unit * max(math.ceil(least / unit), round(size / unit))
    raise UserError(
      f"config.data.patch={recipe.data.patch}: with config.parallel.space={space} its X must be a "
      f"multiple of {unit} and at least {least}; the nearest is {nearest}"
    )


def check_convolutions(module: nn.Module, selected: Sequence[jax.Device]) -> None:
  """Checks that the selected devices can compute the form of the network's convolutions.

  Raises:
    UserError: it is `onednn`, and its package is not there, or several CPU devices would share the
      work.
  """
  if getattr(module, "conv", "") != "onednn":
    return
  require_onednn()
  # XLA knows of no way to divide a call, and would give each device the whole batch.
  if len(selected) > 1 and selected[0].platform == "cpu":
    raise UserError(
      f"config.model.conv='onednn': is not divided over {len(selected)} CPU devices; use "
      "--config.parallel.data=1, or --config.model.conv=auto"
    )


def _check_hosts(recipe: TrainingRecipe) -> None:
  """Checks that several hosts have joined and that the recipe uses all of their devices.

  Raises:
    UserError: they have not, it does not, or it asks for `pmap`.
  """
  hosts, num_devices = jax.process_count(), jax.device_count()
  if hosts == 1:
    return
  if not jax.distributed.is_initialized():
    raise UserError(f"this is one of {hosts} hosts: start it on each, with --coordinator=auto")
  data, space = mesh_shape(recipe)
  if data * space != num_devices:
    raise UserError(
      f"config.parallel.data={recipe.parallel.data}, config.parallel.space={space}: the {hosts} "
      f"hosts have {num_devices} devices together, and all take part; make the product "
      f"{num_devices}, with data=0 for as many as there are"
    )
  if recipe.parallel.mode == "pmap":
    raise UserError("config.parallel.mode='pmap': for one host; use --config.parallel.mode=jit")


def make_replicated_sharding(
  recipe: TrainingRecipe, present: Sequence[jax.Device] = ()
) -> Sharding:
  """Makes the sharding that puts a copy on each device of the run; see `select_devices`."""
  selected = select_devices(recipe, present)
  if len(selected) == 1:
    return SingleDeviceSharding(selected[0])
  return NamedSharding(make_mesh(recipe, selected), EVERYWHERE)


def replicate(recipe: TrainingRecipe, tree: Tree) -> Tree:
  """Copies a tree to each device of the run; a single device keeps the tree as it is.

  Args:
    recipe: the options of the training.
    tree: arrays on this host, with equal values on every host.

  Raises:
    UserError: see `select_devices`.
  """
  if len(select_devices(recipe)) == 1:
    return tree
  sharding = make_replicated_sharding(recipe)
  if jax.process_count() == 1:
    result: Tree = jax.device_put(tree, sharding)
    return result

  def join_copies(x: jax.Array) -> jax.Array:
    """Makes one array of the copies on the devices of all hosts."""
    # A host reaches its own devices only, so each puts its own copy there.
    copies = [jax.device_put(x, device) for device in sharding.addressable_devices]
    return jax.make_array_from_single_device_arrays(x.shape, sharding, copies)

  result = jax.tree.map(join_copies, tree)
  return result


def get_first_device_copy(tree: Tree) -> Tree:
  """Returns the copy on this host's first device of a replicated tree, sharing its memory."""
  result: Tree = jax.tree.map(lambda x: x if len(x.devices()) == 1 else x.addressable_data(0), tree)
  return result


def make_mesh(recipe: TrainingRecipe, selected: list[jax.Device]) -> Mesh:
  """Makes a mesh whose axis `data` divides the batch and whose axis `space` divides X."""
  # XLA chooses the sharding of what lies between the inputs and the outputs.
  shape, axis_types = mesh_shape(recipe, len(selected)), (AxisType.Auto,) * 2
  return jax.make_mesh(shape, (DATA_AXIS, SPACE_AXIS), axis_types=axis_types, devices=selected)
