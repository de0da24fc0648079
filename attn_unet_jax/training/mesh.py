"""The devices that train together: how many, in which mesh, and copies of a tree on each."""

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

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.divisible import check_mean_of_parts, is_mean_of_parts
from attn_unet_jax.training.options import TrainingRecipe

Recipe = TypeVar("Recipe", bound=TrainingRecipe)
Tree = TypeVar("Tree")


DATA_AXIS, SPACE_AXIS = "data", "space"


EVERYWHERE = PartitionSpec()
BY_SAMPLE = PartitionSpec(DATA_AXIS)
BY_SAMPLE_AND_X = PartitionSpec(DATA_AXIS, SPACE_AXIS)
BY_PART_AND_SAMPLE = PartitionSpec(None, DATA_AXIS)  # of a batch that is fed in parts


def select_devices(recipe: TrainingRecipe, present: Sequence[jax.Device] = ()) -> list[jax.Device]:
  """The devices that divide the batch, and along X its patches; those of several hosts are all.

  The recipe is a valid one: what does not fit on any device is refused there.

  Args:
    recipe: what the training reads.
    present: of these; left out, of all that JAX finds.

  Raises:
    UserError: there are not as many, several hosts or 'all' would leave some out, a part of the
      batch does not divide by them, or `pmap` divides it and the loss is not the mean of its parts'
      losses.
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
    fits = max(n for n in range(1, data + 1) if batch // parts % n == 0)
    of = f" in {parts} parts" if parts > 1 else ""
    raise UserError(
      f"config.train.batch_size={batch}: cannot be divided{of} over {data} devices; make it a "
      f"multiple of {parts * data}, or use fewer with --config.parallel.data={fits}"
    )
  if parallel.mode == "pmap" and data > 1:
    check_mean_of_parts(recipe.loss, "config.parallel.mode='pmap'", "--config.parallel.mode=jit")
  return present[: data * space]


def mesh_shape(recipe: TrainingRecipe, present: int = 0) -> tuple[int, int]:
  """Devices over which the batch, and over which each patch is divided: of so many, or of all."""
  space = recipe.parallel.space
  return recipe.parallel.data or max(1, (present or jax.device_count()) // space), space


def pin_device_count(recipe: Recipe) -> Recipe:
  """Returns the recipe with its number of devices, where batch statistics are each device's own.

  The number is part of what is computed then, and a run must go on with as many.
  """
  if recipe.parallel.batch_norm != "local":
    return recipe
  data = mesh_shape(recipe)[0]
  return dataclasses.replace(recipe, parallel=dataclasses.replace(recipe.parallel, data=data))


def num_microbatches_on_one_device(recipe: TrainingRecipe) -> int:
  """Into how many parts one device takes a batch by itself, to need no more memory than a step.

  A part is what the device trains on; the whole batch where a loss is not the mean of its parts'.
  """
  if not is_mean_of_parts(recipe.loss):
    return 1
  return recipe.train.accumulate * mesh_shape(recipe)[0]


def check_patch(recipe: TrainingRecipe, module: nn.Module) -> None:
  """Whether the patch can be divided: every device gets whole voxels of every level of the network.

  A level must also be as long as the kernel: XLA (of jax 0.10) divides shorter ones by gathering
  them, and over a mesh of both axes their gradient comes out wrong.

  Raises:
    UserError: not so; or the network pads nothing, so that its parts would be of several sizes.
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
  size, coarsest = recipe.data.patch[0], module.patch_multiple[0]
  least, unit = module.kernel_size * coarsest, coarsest * space
  if size % unit or size < least:
    nearest = unit * max(math.ceil(least / unit), round(size / unit))
    raise UserError(
      f"config.data.patch={recipe.data.patch}: with config.parallel.space={space} its X must be a "
      f"multiple of {unit} and at least {least}; the nearest is {nearest}"
    )


def _check_hosts(recipe: TrainingRecipe) -> None:
  hosts, there = jax.process_count(), jax.device_count()
  if hosts == 1:
    return
  if not jax.distributed.is_initialized():
    raise UserError(f"this is one of {hosts} hosts: start it on each, with --coordinator=auto")
  data, space = mesh_shape(recipe)
  if data * space != there:
    raise UserError(
      f"config.parallel.data={recipe.parallel.data}, config.parallel.space={space}: the {hosts} "
      f"hosts have {there} devices together, and all take part; make the product {there}, with "
      "data=0 for as many as there are"
    )
  if recipe.parallel.mode == "pmap":
    raise UserError("config.parallel.mode='pmap': for one host; use --config.parallel.mode=jit")


def make_replicated_sharding(
  recipe: TrainingRecipe, present: Sequence[jax.Device] = ()
) -> Sharding:
  """A copy on each of the run's devices; see `devices`."""
  there = select_devices(recipe, present)
  if len(there) == 1:
    return SingleDeviceSharding(there[0])
  return NamedSharding(make_mesh(recipe, there), EVERYWHERE)


def replicate(recipe: TrainingRecipe, tree: Tree) -> Tree:
  """The tree with a copy on each of the run's devices; as it is where there is one.

  Args:
    recipe: what the training reads.
    tree: arrays on this host, of the same values on every host.

  Raises:
    UserError: see `devices`.
  """
  there = select_devices(recipe)
  if len(there) == 1:
    return tree
  sharding = make_replicated_sharding(recipe)
  if jax.process_count() == 1:
    return jax.device_put(tree, sharding)

  def joined(x: jax.Array) -> jax.Array:  # every host puts its own copy onto its own devices
    copies = [jax.device_put(x, device) for device in sharding.addressable_devices]
    return jax.make_array_from_single_device_arrays(x.shape, sharding, copies)

  return jax.tree.map(joined, tree)


def get_first_device_copy(tree: Tree) -> Tree:
  """The copy of this host's first device, of a tree that was `spread`; shares its memory."""
  return jax.tree.map(lambda x: x if len(x.devices()) == 1 else x.addressable_data(0), tree)


def make_mesh(recipe: TrainingRecipe, there: list[jax.Device]) -> Mesh:
  """The mesh of these devices: its axis `data` divides the batch, `space` each patch along X."""
  shape, axis_types = mesh_shape(recipe, len(there)), (AxisType.Auto,) * 2
  return jax.make_mesh(shape, (DATA_AXIS, SPACE_AXIS), axis_types=axis_types, devices=there)
