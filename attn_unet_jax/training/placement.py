"""Where the patches of a streamed batch go."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import (
  NamedSharding,
)

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
  """How streamed blocks reach the devices.

  Attributes:
    rows: the places of the global batch that this host makes, in the order that `put` takes.
    put: the number of a step and its blocks, NumPy `[len(rows), ...]`, onto this host's devices.
  """

  rows: Sequence[int]
  put: Callable[[int, SourceBlock], StreamedBatch]


def plan_placement(recipe: TrainingRecipe) -> BlockPlacement:
  """Where the patches of a batch go; no patch goes to a device that does not train on it.

  Raises:
    UserError: see `devices`.
  """
  there = select_devices(recipe)
  mesh, table = make_mesh(recipe, there), _tabulate_samples(recipe, len(there))
  sharding = NamedSharding(mesh, BY_SAMPLE if table.ndim == 3 else BY_PART_AND_SAMPLE)
  everywhere = NamedSharding(mesh, EVERYWHERE)
  local = sharding.addressable_devices_indices_map(table.shape).values()
  rows = np.unique(np.concatenate([table[index].ravel() for index in local if index is not None]))

  def array(values: np.ndarray) -> jax.Array:
    def piece(index: Any) -> np.ndarray:
      return values[np.searchsorted(rows, table[index[: table.ndim]])]

    return jax.make_array_from_callback((*table.shape, *values.shape[1:]), sharding, piece)

  def put(step: int, blocks: SourceBlock) -> StreamedBatch:
    number = jax.make_array_from_callback((), everywhere, lambda _: np.int32(step))
    return StreamedBatch(number, jax.tree.map(array, blocks))

  return BlockPlacement(rows.tolist(), put)


def _tabulate_samples(recipe: TrainingRecipe, count: int) -> np.ndarray:
  """The places of a batch, as its blocks are fed: [parts, n], with `pmap` [devices, parts, n]."""
  places = np.arange(recipe.train.batch_size)
  if recipe.parallel.mode == "pmap" and count > 1:
    return places.reshape(recipe.train.accumulate, count, -1).swapaxes(0, 1)
  return places.reshape(recipe.train.accumulate, -1)
