"""Which patch is cut when: one pure function of (seed, step), obeyed by every source of patches.

Cases come in *blocks* of `cases_per_block`; each case of a block gives `patches_per_case` patches,
in turn with the others, before the next block opens. A streaming source so decodes a scan once per
block, and a resident source cuts the same patches. Within a round every case comes exactly once.
What a step gets depends on nothing but the seed and the step number, on any number of devices.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array

_ORDER_STREAM = 2**31 - 1  # keeps the keys of the case order apart from those of the steps
_REFERENCE_STREAM = 2  # apart from the halves into which `spot` splits a patch's key


@dataclasses.dataclass(frozen=True)
class SchedulePlan:
  """What the schedule must know of the run, all static."""

  cases: int
  batch_size: int
  cases_per_block: int
  patches_per_case: int
  foreground_fraction: float
  references: bool = False  # whether each patch is given another case too


class BatchSample(NamedTuple):
  """One global batch: case index, whether the patch is centred on foreground, and a key, `[N]`.

  `reference` is the index of another case of the same block, or None where the plan has none.
  """

  case: Array
  foreground: Array
  key: Array
  reference: Array | None = None


def sample_batch(plan: SchedulePlan, seed: int, step: Array | int) -> BatchSample:
  """The patches of step `step`, indices 0 to `plan.batch_size` - 1 of the global batch.

  The key of a patch is `fold_in(fold_in(key(seed), step), index)`. The set fraction of a case's
  patches is centred on foreground, to one patch exactly, and neighbours in a batch take turns.
  """
  index = jnp.arange(plan.batch_size)
  step_key = jax.random.fold_in(jax.random.key(seed), step)
  keys = jax.vmap(lambda i: jax.random.fold_in(step_key, i))(index)
  open_cases = min(plan.cases_per_block, plan.cases)
  length = open_cases * plan.patches_per_case
  block, within = jnp.divmod(step * plan.batch_size + index, length)
  turn, slot = jnp.divmod(within, open_cases)
  first = step * plan.batch_size // length * open_cases  # place of the batch's first block
  span = ((plan.batch_size - 1) // length + 2) * open_cases  # at most, from there

  def cases_of(slots: Array) -> Array:
    return _cases_at(plan.cases, seed, block * open_cases + slots, first, span)

  count = (block + turn + slot).astype(jnp.float32)
  share = plan.foreground_fraction
  foreground = jnp.floor((count + 1) * share) > jnp.floor(count * share)
  reference = cases_of(_draw_other_case(keys, slot, open_cases)) if plan.references else None
  return BatchSample(cases_of(slot), foreground, keys, reference)


def _draw_other_case(keys: Array, slot: Array, open_cases: int) -> Array:
  """Another slot of the block for each patch, by its key; its own if the block has no other."""

  def step(key: Array) -> Array:
    return jax.random.randint(jax.random.fold_in(key, _REFERENCE_STREAM), (), 1, max(open_cases, 2))

  return (slot + jax.vmap(step)(keys)) % open_cases


def _cases_at(cases: int, seed: int, places: Array, first: Array | int, span: int) -> Array:
  """The cases at `places` `[N]`, `first` to `first` + `span` - 1, of the endless order of rounds.

  Only the orders of the rounds that a batch can touch are drawn: with thousands of cases each is a
  sort, and a large batch would draw the same one for every patch.
  """
  round_, position = jnp.divmod(places, cases)
  order_key = jax.random.fold_in(jax.random.key(seed), _ORDER_STREAM)
  first_round = first // cases

  def order(number: Array) -> Array:
    return jax.random.permutation(jax.random.fold_in(order_key, number), cases)

  orders = jax.vmap(order)(first_round + jnp.arange((span - 2) // cases + 2))
  return orders[round_ - first_round, position]


def corner(
  key: Array,
  foreground: Array,
  size: Array,
  positions: Array,
  count: Array,
  patch: tuple[int, int, int],
) -> Array:
  """The lowest voxel of one patch, `[3]` int32, in the case's working grid.

  Args:
    key: the patch's own key.
    foreground: whether to centre on a foreground voxel, `[]` bool.
    size: the case's extent in voxels, `[3]`, at least the patch.
    positions: foreground voxels of the case, `[K, 3]`.
    count: how many rows of `positions` are real, `[]`; with 0 the patch lies anywhere.
    patch: extent in voxels.
  """
  anywhere_key, pick_key = jax.random.split(key)
  room = size - jnp.asarray(patch)
  anywhere = jnp.floor(jax.random.uniform(anywhere_key, (3,)) * (room + 1)).astype(jnp.int32)
  pick = positions[jax.random.randint(pick_key, (), 0, jnp.maximum(count, 1))]
  centred = pick - jnp.asarray(patch) // 2
  return jnp.clip(jnp.where(foreground & (count > 0), centred, anywhere), 0, room)


def spot(
  key: Array,
  foreground: Array,
  size: Array,
  positions: Array,
  count: Array,
  patch: tuple[int, int, int],
  block: tuple[int, int, int],
) -> tuple[Array, Array]:
  """Where the block of one patch begins, `[3]` int32, and the key data of its augmentation.

  The patch lies in the centre of the block, which may reach beyond the scan. Arguments as for
  `corner`; whoever cuts, on the accelerator or on the host, asks this function.
  """
  corner_key, augment_key = jax.random.split(key)
  low = corner(corner_key, foreground, size, positions, count, patch)
  return low - (jnp.asarray(block) - jnp.asarray(patch)) // 2, jax.random.key_data(augment_key)
