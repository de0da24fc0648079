"""Moves the patches of a streamed batch to the devices that train on them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from attn_unet_jax.patches.batch import StreamedBatch
from attn_unet_jax.patches.device_source import SourceBlock
from attn_unet_jax.training.mesh import (
  BY_PART_AND_SAMPLE,
  BY_SAMPLE,
  EVERYWHERE,
  make_mesh,
  select_devices,
)
from attn_unet_jax.training.options import TrainingRecipe


class BlockPlacement(NamedTuple):
  """A plan of which patches this host makes and how they reach its devices.

  Attributes:
    rows: the samples of the global batch that this host makes, in the order for `put_blocks`.
    put_blocks: moves the number of a step and its blocks, NumPy `[len(rows), ...]`, to the devices
      of this host.
  """

  rows: Sequence[int]
  put_blocks: Callable[[int, SourceBlock], StreamedBatch]


def plan_placement(recipe: TrainingRecipe) -> BlockPlacement:
  """Plans the placement of a batch, so that a patch reaches only devices that train on it.

  Raises:
    UserError: see `select_devices`.
  """
  selected = select_devices(recipe)
  mesh, table = make_mesh(recipe, selected), _tabulate_samples(recipe, len(selected))
  # With `pmap` the first axis of the table is that of the devices.
  sharding = NamedSharding(mesh, BY_SAMPLE if table.ndim == 3 else BY_PART_AND_SAMPLE)
  everywhere = NamedSharding(mesh, EVERYWHERE)
  local = sharding.addressable_devices_indices_map(table.shape).values()
  # Devices along `space` share their patches, which this host makes once.
  rows = np.unique(np.concatenate([table[index].ravel() for index in local if index is not None]))

  def assemble_array(values: np.ndarray) -> jax.Array:
    """Makes the global array whose samples of this host are `values`."""

    def select_rows(index: Any) -> np.ndarray:
      """Returns the samples of the device that holds this part of the table."""
      # `rows` is sorted, so the search finds where `values` holds each sample.
      result: np.ndarray = values[np.searchsorted(rows, table[index[: table.ndim]])]
      return result

    return jax.make_array_from_callback((*table.shape, *values.shape[1:]), sharding, select_rows)

  def put_blocks(step: int, blocks: SourceBlock) -> StreamedBatch:
    """Moves the number of a step and its blocks to the devices of this host."""
    # An array already on the devices: the loop forbids implicit transfers.
    number = jax.make_array_from_callback((), everywhere, lambda _: np.int32(step))
    return StreamedBatch(number, jax.tree.map(assemble_array, blocks))

  return BlockPlacement(rows.tolist(), put_blocks)


def _tabulate_samples(recipe: TrainingRecipe, count: int) -> np.ndarray:
  """Returns the samples of a batch by part: [parts, n], or [devices, parts, n] with `pmap`."""
  samples = np.arange(recipe.train.batch_size)
  if recipe.parallel.mode == "pmap" and count > 1:
    # Each part is divided over all devices, so a device trains on a piece of every part.
    return samples.reshape(recipe.train.accumulate, count, -1).swapaxes(0, 1)
  return samples.reshape(recipe.train.accumulate, -1)
