"""The schedule of patches: a pure function of (seed, step) that every source follows.

Cases come in *blocks* of `cases_per_block`; each case of a block gives `patches_per_case` patches,
in turn with the others, before the next block opens. A streaming source so decodes a scan once per
block, and a resident source cuts the same patches. Within a round every case comes exactly once.
The patches of a step depend on the seed and the step number alone, on any number of devices.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array

_ORDER_STREAM = 2**31 - 1  # keeps the keys of the case order apart from those of the steps
_REFERENCE_STREAM = 2  # apart from the halves into which `patch_origin_and_key` splits a key


@dataclasses.dataclass(frozen=True)
class SchedulePlan:
  """The settings of a run that the schedule depends on, all static."""

  cases: int
  batch_size: int
  cases_per_block: int
  patches_per_case: int
  foreground_fraction: float
  references: bool = False  # whether each patch gets another case, to match its histogram


class BatchSample(NamedTuple):
  """A global batch: case index, whether the patch is centred on foreground, and a key, `[N]`.

  `reference` is the index of another case of the same block, or None where the plan has none.
  """

  case: Array
  foreground: Array
  key: Array
  reference: Array | None = None


def sample_batch(plan: SchedulePlan, seed: int, step: Array | int) -> BatchSample:
  """Returns the patches of a step, with indices 0 to `plan.batch_size` - 1 in the global batch.

  The key of a patch is `fold_in(fold_in(key(seed), step), index)`. The fraction of a case's
  patches that is centred on foreground is exact to one patch, and neighbours in a batch alternate.
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

  # The case's patches so far, shifted by block and slot: otherwise all cases of a block would be
  # centred on foreground in the same turns.
  count = (block + turn + slot).astype(jnp.float32)
  share = plan.foreground_fraction
  foreground = jnp.floor((count + 1) * share) > jnp.floor(count * share)
  reference = cases_of(_draw_other_case(keys, slot, open_cases)) if plan.references else None
  return BatchSample(cases_of(slot), foreground, keys, reference)


def _draw_other_case(keys: Array, slot: Array, open_cases: int) -> Array:
  """Draws another slot of the block for each patch; its own if the block has no other."""

  def draw_shift(key: Array) -> Array:
    return jax.random.randint(jax.random.fold_in(key, _REFERENCE_STREAM), (), 1, max(open_cases, 2))

  return (slot + jax.vmap(draw_shift)(keys)) % open_cases


def _cases_at(cases: int, seed: int, places: Array, first: Array | int, span: int) -> Array:
  """Returns the cases at `places` `[N]` of the endless order of rounds.

  All places lie between `first` and `first` + `span` - 1.
  """
  # Only the orders of the rounds that a batch can touch are drawn: with thousands of cases each is
  # a sort, and a large batch would draw one order again for every patch.
  round_, position = jnp.divmod(places, cases)
  order_key = jax.random.fold_in(jax.random.key(seed), _ORDER_STREAM)
  first_round = first // cases

  def shuffle_round(number: Array) -> Array:
    return jax.random.permutation(jax.random.fold_in(order_key, number), cases)

  orders = jax.vmap(shuffle_round)(first_round + jnp.arange((span - 2) // cases + 2))
  return orders[round_ - first_round, position]


def patch_corner(
  key: Array,
  foreground: Array,
  size: Array,
  positions: Array,
  count: Array,
  patch: tuple[int, int, int],
) -> Array:
  """Returns the lowest voxel of one patch, `[3]` int32, in the case's working grid.

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
  # Both corners are drawn in any case, so that one program serves every patch. A centred patch that
  # reaches beyond the scan is moved inside.
  return jnp.clip(jnp.where(foreground & (count > 0), centred, anywhere), 0, room)


def patch_origin_and_key(
  key: Array,
  foreground: Array,
  size: Array,
  positions: Array,
  count: Array,
  patch: tuple[int, int, int],
  block: tuple[int, int, int],
) -> tuple[Array, Array]:
  """Returns the lowest voxel of a patch's block, `[3]` int32, and the key data of its augmentation.

  The patch lies in the centre of the block, which may reach beyond the scan. The arguments
  are those of `patch_corner`. The device and the host both call this function, so that they agree.
  """
  corner_key, augment_key = jax.random.split(key)
  low = patch_corner(corner_key, foreground, size, positions, count, patch)
  return low - (jnp.asarray(block) - jnp.asarray(patch)) // 2, jax.random.key_data(augment_key)
