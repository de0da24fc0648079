"""Windows cover what they are planned for, are of sizes that a network takes, and are few."""

import itertools
import math

import numpy as np
import pytest

from attn_unet_jax.inference.plan import (
  find_origin,
  is_worthwhile,
  plan_large,
  plan_patches,
  window_starts,
)

PATCH, MULTIPLE = (32, 32, 16), (8, 8, 8)


def covers(starts, size, extent):
  covered = np.zeros(max(extent, starts[-1] + size), int)
  for start in starts:
    covered[start : start + size] += 1
  return covered.min() >= 1


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("margin", [0, 4])
@pytest.mark.parametrize("most", [2**24, 40**3, 1])
def test_windows_cover_every_extent(aligned, margin, most):
  for x, z in itertools.product(range(1, 150, 7), (3, 40, 77)):
    extent = (x, 50, z)
    plan = plan_large(extent, PATCH, (margin,) * 3, MULTIPLE, 0.25, most, aligned=aligned)
    for n, size, inner, starts, patch in zip(
      extent, plan.window, plan.inner, plan.starts, PATCH, strict=True
    ):
      assert covers(starts, inner, n)
      assert size - inner == 2 * margin
      assert size >= patch
      assert (size - patch) % 8 == 0
      assert not aligned or all(start % 8 == 0 for start in starts)
      assert aligned or starts[-1] + inner == max(n, inner)
    # Where memory allows none, the smallest there is.
    assert math.prod(plan.window) <= most or (most == 1 and plan.window == PATCH)


def test_one_window_holds_what_fits():
  plan = plan_large((205, 205, 150), (160, 160, 96), (0, 0, 0), (16, 16, 16), 0.5)
  assert plan.window == (224, 224, 160)
  assert plan.windows == 1
  patches = plan_patches((205, 205, 150), (160, 160, 96), (0, 0, 0), 0.5)
  assert patches.windows == 12
  assert patches.voxels / (205 * 205 * 150) == pytest.approx(4.7, abs=0.05)
  assert plan.voxels < 0.3 * patches.voxels


def test_of_what_memory_allows_the_plan_that_computes_least_is_taken():
  """By trying all sizes and counting."""
  extent, most, best = (100, 70, 60), 64 * 48 * 48, math.inf
  for size in itertools.product(range(32, 120, 16), range(32, 90, 16), range(16, 80, 16)):
    if math.prod(size) <= most:
      count = math.prod(map(len, window_starts(extent, size, 0.25)))
      best = min(best, count * math.prod(size))
  assert plan_large(extent, PATCH, (0, 0, 0), MULTIPLE, 0.25, most).voxels == best


def test_a_part_is_worthwhile_from_a_tenth_on():
  whole = plan_patches((90, 40, 40), (10, 40, 40), (0, 0, 0), 0.0)
  assert whole.windows == 9
  assert not is_worthwhile(whole, whole)
  assert is_worthwhile(plan_patches((80, 40, 40), (10, 40, 40), (0, 0, 0), 0.0), whole)


@pytest.mark.parametrize("unit", [1, 8])
def test_what_a_plan_covers_holds_its_part_and_lies_in_the_scan(unit):
  rng = np.random.default_rng(0)
  for _ in range(300):
    n = int(rng.integers(1, 120))
    start = int(rng.integers(0, n)) // unit * unit
    stop = int(rng.integers(start + 1, n + 1))
    extent = (stop - start, 32, 16)
    plan = plan_large(extent, PATCH, (0, 0, 0), (unit,) * 3, 0.0, aligned=unit > 1)
    part = (slice(start, stop), slice(0, 32), slice(0, 16))
    first = find_origin(part, plan, (n, 32, 16), (unit,) * 3)[0]
    last = first + plan.extent[0]
    assert first >= 0
    assert first % unit == 0
    assert first <= start
    assert last >= stop
    # A window larger than the scan begins with it; another one ends in it, or less than a unit on.
    assert last <= max(n, plan.inner[0]) + unit - 1
