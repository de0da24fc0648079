"""The schedule of patches: a pure function of (seed, step) that every source follows.

Cases come in *blocks* of `cases_per_block`; each case of a block gives `patches_per_case` patches,
in turn with the others, before the next block opens. A streaming source so decodes a scan once per
block, and a resident source cuts the same patches. Within a round every case comes exactly once.
The patches of a step depend on the seed and the step number alone, on any number of devices.

With two data sets each has a sequence of patches of its own. The two are merged by the share of the
second set, evenly and exact to one patch.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array

_ORDER_STREAM = 2**31 - 1  # keeps the keys of the case order apart from those of the steps
_SHARE_STEPS = 1000  # a share of the second data set is a number of thousandths
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
  also: int = 0  # how many of the cases, the last ones, are of a second data set
  also_share: float = 0.0  # the share of the patches that are of these


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
  first = step * plan.batch_size
  places = first + jnp.arange(plan.batch_size)
  step_key = jax.random.fold_in(jax.random.key(seed), step)
  keys = jax.vmap(lambda i: jax.random.fold_in(step_key, i))(jnp.arange(plan.batch_size))
  if not plan.also:
    return _sample_set(plan, seed, keys, places, first)
  num_second, num_before = _count_second(plan, places), _count_second(plan, first)
  is_second = _count_second(plan, places + 1) > num_second
  one, other = plan.cases - plan.also, plan.also
  own = _sample_set(
    dataclasses.replace(plan, cases=one), seed, keys, places - num_second, first - num_before
  )
  second = _sample_set(dataclasses.replace(plan, cases=other), seed, keys, num_second, num_before)
  # Both are drawn for all patches of the batch, since one program serves every step.
  result: BatchSample = jax.tree.map(
    lambda a, b: jnp.where(is_second, b, a), own, _shift_cases(second, one)
  )
  return result


def _count_second(plan: SchedulePlan, places: Array | int) -> Array:
  """Returns how many of the patches before each place are of the second data set."""
  # In whole numbers: a product of floats would lose patches after some millions.
  share = round(plan.also_share * _SHARE_STEPS)
  rounds, within = jnp.divmod(places, _SHARE_STEPS)
  return rounds * share + within * share // _SHARE_STEPS


def _shift_cases(sample: BatchSample, cases: int) -> BatchSample:
  """Adds to the indices of cases."""
  reference = None if sample.reference is None else sample.reference + cases
  return sample._replace(case=sample.case + cases, reference=reference)


def _sample_set(
  plan: SchedulePlan, seed: int, keys: Array, places: Array, first_place: Array | int
) -> BatchSample:
  """Returns patches of the sequence of one data set.

  Args:
    plan: the settings, with the cases of this set alone.
    seed: the seed of the order of cases.
    keys: the keys of the patches, `[N]`.
    places: their places in the sequence, `[N]`, of which N neighbours contain all.
    first_place: the first of these neighbours.
  """
  open_cases = min(plan.cases_per_block, plan.cases)
  length = open_cases * plan.patches_per_case
  block, within = jnp.divmod(places, length)
  turn, slot = jnp.divmod(within, open_cases)
  first = first_place // length * open_cases  # place of the batch's first block
  span = ((plan.batch_size - 1) // length + 2) * open_cases  # at most, from there

  def cases_of(slots: Array) -> Array:
    """Returns the cases in slots of the patches' blocks."""
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
    """Draws how many slots further the other case is."""
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
    """Returns the order of the cases in a round."""
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
