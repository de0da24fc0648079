import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.patches.schedule import (
  _ORDER_STREAM,
  SchedulePlan,
  patch_corner,
  patch_origin_and_key,
  sample_batch,
)

PLAN = SchedulePlan(
  cases=7, batch_size=3, cases_per_block=4, patches_per_case=5, foreground_fraction=0.4
)
STEPS = 7 * 4 * 5  # enough for whole rounds: 420 patches, 84 openings of a case


@pytest.fixture(scope="module")
def draws():
  every = jax.jit(jax.vmap(lambda step: sample_batch(PLAN, 11, step)))(jnp.arange(STEPS))
  key = jax.random.key_data(every.key).reshape(STEPS * 3, -1)
  return np.asarray(every.case).ravel(), np.asarray(every.foreground).ravel(), np.asarray(key)


def test_every_case_comes_once_a_round(draws):
  cases, _, _ = draws
  openings = cases.reshape(-1, PLAN.patches_per_case, PLAN.cases_per_block)
  # Within a block the open cases take turns, and none opens or closes.
  assert (openings == openings[:, :1]).all()
  order = openings[:, 0].ravel()
  assert len(order) == 84
  for round_ in order.reshape(-1, PLAN.cases):
    assert sorted(round_) == list(range(PLAN.cases))


def test_every_case_comes_once_a_round_though_a_batch_reaches_over_several():
  """Nine patches of blocks of five, out of six cases: of up to two blocks, and three rounds."""
  plan = SchedulePlan(6, 9, 5, 2, 0.5)
  drawn = jax.jit(jax.vmap(lambda step: sample_batch(plan, 11, step).case))(jnp.arange(60))
  openings = np.asarray(drawn).reshape(-1, 2, 5)
  assert (openings[:, 0] == openings[:, 1]).all()
  for round_ in openings[:, 0].reshape(-1, 6):
    assert sorted(round_) == list(range(6))


def test_a_case_keeps_its_place_in_the_batch_where_batches_fill_the_turns_of_a_block():
  """So that one of several hosts reads it."""
  plan = dataclasses.replace(PLAN, cases=8, batch_size=2)
  drawn = jax.jit(jax.vmap(lambda step: sample_batch(plan, 11, step).case))(jnp.arange(40))
  for first, second in np.asarray(drawn).reshape(4, 10, 2).swapaxes(1, 2):
    assert len(set(first)) == len(set(second)) == 2
    assert not set(first) & set(second)


def test_the_order_of_a_round_is_that_of_seed_and_round(draws):
  """Written out, so that a run resumed by a later version goes on with the same cases."""
  cases, _, _ = draws
  order = cases.reshape(-1, PLAN.patches_per_case, PLAN.cases_per_block)[:, 0].reshape(-1, 7)
  of_orders = jax.random.fold_in(jax.random.key(11), 2**31 - 1)
  for number in (0, 1, 11):
    expected = jax.random.permutation(jax.random.fold_in(of_orders, number), PLAN.cases)
    np.testing.assert_array_equal(order[number], expected)


def test_rounds_are_ordered_differently(draws):
  cases, _, _ = draws
  order = cases.reshape(-1, PLAN.patches_per_case, PLAN.cases_per_block)[:, 0].reshape(-1, 7)
  assert len({tuple(round_) for round_ in order}) > 6


def test_the_set_fraction_is_centred_on_foreground(draws):
  cases, foreground, _ = draws
  for case in range(PLAN.cases):
    assert foreground[cases == case].mean() == pytest.approx(0.4, abs=0.07)
  assert foreground.mean() == pytest.approx(0.4, abs=0.01)


def test_a_small_fraction_is_not_lost_where_blocks_are_short():
  """Of two cases and two patches each: a quarter of sixteen, in no place of a block alone."""
  plan = SchedulePlan(4, 2, 2, 2, 0.25)
  drawn = np.concatenate([sample_batch(plan, 0, step).foreground for step in range(8)])
  assert drawn.sum() == 4
  assert (drawn.reshape(4, 4).sum(0) > 0).all()


def test_keys_are_those_of_seed_step_and_index(draws):
  keys = draws[2]
  step_key = jax.random.fold_in(jax.random.key(11), 17)
  expected = [jax.random.key_data(jax.random.fold_in(step_key, i)) for i in range(3)]
  np.testing.assert_array_equal(keys[17 * 3 : 17 * 3 + 3], np.stack(expected))
  of_the_order = jax.random.fold_in(jax.random.key(11), _ORDER_STREAM)
  others = [jax.random.key_data(jax.random.fold_in(of_the_order, round_)) for round_ in range(12)]
  assert len(np.unique([*keys, *others], axis=0)) == len(keys) + 12


def test_a_half_in_pairs_means_one_of_two():
  plan = SchedulePlan(4, 2, 4, 2, 0.5)
  for step in range(6):
    assert sample_batch(plan, 0, step).foreground.sum() == 1


@pytest.mark.parametrize(("foreground", "count"), [(False, 0), (False, 2), (True, 0)])
def test_corners_stay_inside_and_reach_both_ends(foreground, count):
  """Unless the patch is to be centred on foreground, and there is some."""
  patch, size, positions = (4, 5, 6), jnp.array([9, 5, 8]), jnp.full((2, 3), 3)
  draw = jax.jit(
    jax.vmap(
      lambda k: patch_corner(k, jnp.bool(foreground), size, positions, jnp.int32(count), patch)
    )
  )
  corners = np.asarray(draw(jax.random.split(jax.random.key(0), 200)))
  np.testing.assert_array_equal(corners.min(0), [0, 0, 0])
  np.testing.assert_array_equal(corners.max(0), [5, 0, 2])


def test_foreground_patches_hold_a_listed_voxel():
  patch, size = (4, 4, 4), jnp.array([20, 20, 20])
  positions = jnp.array([[0, 19, 10], [7, 8, 9], [0, 0, 0]])
  draw = jax.vmap(lambda k: patch_corner(k, jnp.bool(True), size, positions, jnp.int32(2), patch))
  corners = np.asarray(draw(jax.random.split(jax.random.key(1), 40)))
  # The third position is padding: never drawn. Near the border the patch is moved inside.
  assert {tuple(c) for c in corners.tolist()} == {(0, 16, 8), (5, 6, 7)}


def test_the_patch_lies_in_the_middle_of_its_block():
  """Of a listed voxel 8, 9, 10 it begins 2, 1, 3 voxels before; the block 3, 2, 0 before that."""
  positions, patch, block = jnp.array([[8, 9, 10]]), (4, 3, 6), (10, 7, 7)
  low, _ = patch_origin_and_key(
    jax.random.key(0), jnp.bool(True), jnp.full(3, 30), positions, jnp.int32(1), patch, block
  )
  assert low.tolist() == [8 - 2 - 3, 9 - 1 - 2, 10 - 3 - 0]


def test_a_reference_is_another_case_of_the_same_block_and_changes_nothing_else():
  """Blocks of two of four cases, eight patches each: the other one; of one case, itself."""
  plan = SchedulePlan(4, 4, 2, 4, 0.5)
  both = [plan, dataclasses.replace(plan, references=True)]
  draws = [jax.jit(jax.vmap(lambda n, p=p: sample_batch(p, 3, n)))(jnp.arange(40)) for p in both]
  assert draws[0].reference is None
  for name in ("case", "foreground"):
    np.testing.assert_array_equal(*(getattr(draw, name) for draw in draws))
  np.testing.assert_array_equal(*(jax.random.key_data(draw.key) for draw in draws))
  case, reference = (np.asarray(a).reshape(-1, 8) for a in (draws[1].case, draws[1].reference))
  np.testing.assert_array_equal(reference[:, 0::2], case[:, 1::2])
  np.testing.assert_array_equal(reference[:, 1::2], case[:, 0::2])
  wide = SchedulePlan(5, 4, 5, 4, 0.5, references=True)
  many = jax.jit(jax.vmap(lambda n: sample_batch(wide, 3, n)))(jnp.arange(200))
  pairs = set(
    zip(*(np.asarray(a).ravel().tolist() for a in (many.case, many.reference)), strict=True)
  )
  assert pairs == {(a, b) for a in range(5) for b in range(5) if a != b}
  assert sample_batch(SchedulePlan(1, 2, 8, 4, 0.5, references=True), 0, 0).reference.tolist() == [
    0,
    0,
  ]
