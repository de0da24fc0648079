import itertools
import math

import numpy as np
import pytest
from scipy import stats

from attn_unet_jax.evaluation.paired_tests import adjust_by_holm, paired_tests


def of_differences(*differences):
  start = np.linspace(0.2, 0.7, len(differences))
  return paired_tests(start, start + np.array(differences))


def test_signed_ranks_by_hand():
  # All five rise: one of 2^5 signings has W = 15, one W = 0, so p = 2 / 32.
  assert of_differences(0.01, 0.02, 0.03, 0.04, 0.05).p_wilcoxon == pytest.approx(2 / 32)
  # Only the largest falls: 10 of 32 sets of ranks sum to at most 5, so p = 20 / 32.
  assert of_differences(0.01, 0.02, 0.03, 0.04, -0.05).p_wilcoxon == pytest.approx(20 / 32)


def test_signed_ranks_by_all_signings():
  difference = np.random.default_rng(0).normal(0.3, 1, 9)
  ranks = np.abs(difference).argsort().argsort() + 1
  rising = ranks[difference > 0].sum()
  least = min(rising, ranks.sum() - rising)
  sums = [sum(itertools.compress(ranks, signs)) for signs in itertools.product((0, 1), repeat=9)]
  expected = min(1.0, 2 * np.mean([total <= least for total in sums]))
  assert of_differences(*difference).p_wilcoxon == pytest.approx(expected)


def test_signed_ranks_of_many_pairs_by_hand():
  """Normal from 51 pairs on; differences of 0 have no rank and no part in the number."""
  difference = np.random.default_rng(1).normal(0.2, 1, 60)
  ranks = np.abs(difference).argsort().argsort() + 1
  z = (ranks[difference > 0].sum() - 60 * 61 / 4) / math.sqrt(60 * 61 * 121 / 24)
  expected = math.erfc(abs(z) / math.sqrt(2))
  start = np.full(65, 0.5)
  found = paired_tests(start, start + np.concatenate([difference, np.zeros(5)]))
  assert found.p_wilcoxon == pytest.approx(expected)
  assert (found.n, found.difference) == (65, pytest.approx(difference.sum() / 65))
  assert 0.05 < expected < 0.95


def test_equal_differences_share_a_rank_whatever_their_rounding_is():
  """Hausdorff distances in voxels of 0.7 mm: five rise by one voxel, one falls by one."""
  voxels = np.array([3.0, 5, 7, 2, 4, 10])
  change = np.array([1.0, 1, 1, 1, 1, -1])
  # All six have the rank 3.5. Of 2^6 signings 7 have at most one that falls, so p = 2 * 7 / 64.
  assert paired_tests(voxels, voxels + change).p_wilcoxon == 14 / 64
  first, second = (
    [float(f"{0.7 * size:.6g}") for size in sizes] for sizes in (voxels, voxels + change)
  )
  assert len(set(np.abs(np.subtract(second, first)))) > 1
  assert paired_tests(first, second).p_wilcoxon == 14 / 64


def test_differences_of_0_do_not_make_few_others_more_significant():
  """Five that rise have p = 2 / 32 at least, however many cases do not change at all."""
  for zeros in (1, 8, 40):
    found = of_differences(0.01, 0.02, 0.03, 0.04, 0.05, *[0.0] * zeros)
    assert found.p_wilcoxon == pytest.approx(2 / 32)
    assert found.n == 5 + zeros


def test_tied_ranks_by_all_signings():
  difference = np.array([0.1, -0.1, 0.2, 0.2, 0.2, -0.3, 0.4, 0.4])
  ranks = np.array([1.5, 1.5, 4, 4, 4, 6, 7.5, 7.5])
  least = ranks[difference < 0].sum()
  sums = [sum(itertools.compress(ranks, signs)) for signs in itertools.product((0, 1), repeat=8)]
  expected = 2 * np.mean([total <= least for total in sums])
  assert paired_tests(np.zeros(8), difference).p_wilcoxon == expected


@pytest.mark.parametrize("n", [1, 2, 7, 20, 50])
def test_without_ties_the_exact_distribution_is_that_of_scipy(n):
  difference = np.random.default_rng(n).normal(0.3, 1, n)
  first, second = np.zeros(n + 1), np.append(difference, 0)
  assert paired_tests(first, second).p_wilcoxon == stats.wilcoxon(difference).pvalue


def test_t_by_hand():
  # With 2 degrees of freedom p = 1 - t / sqrt(2 + t^2); here t = 2 / (1 / sqrt(3)).
  t = 2 * math.sqrt(3)
  found = of_differences(0.1, 0.2, 0.3)
  assert found.p_t == pytest.approx(1 - t / math.sqrt(2 + t * t))
  assert found.p_t == pytest.approx(0.0741799, abs=1e-6)
  # With 1 degree (Cauchy) p = 1 - 2 atan(t) / pi; here t = 2 / (sd / sqrt(2)), sd = sqrt(2).
  assert of_differences(0.1, 0.3).p_t == pytest.approx(1 - 2 * math.atan(2) / math.pi)


def test_the_direction_is_the_second_minus_the_first():
  found = paired_tests([0.5, 0.6, 0.7], [0.6, 0.8, 0.65])
  assert found.n == 3
  assert found.difference == pytest.approx((0.1 + 0.2 - 0.05) / 3)
  back = paired_tests([0.6, 0.8, 0.65], [0.5, 0.6, 0.7])
  assert back.difference == pytest.approx(-found.difference)
  assert (back.p_t, back.p_wilcoxon) == pytest.approx((found.p_t, found.p_wilcoxon))


def test_where_a_test_says_nothing_it_is_nan():
  for first, second in (([], []), ([0.5], [0.6]), ([0.5, 0.5], [0.5, 0.5])):
    found = paired_tests(first, second)
    assert found.n == len(first)
    assert math.isnan(found.p_t)
    assert math.isnan(found.p_wilcoxon)
  constant = of_differences(0.1, 0.1, 0.1)
  assert math.isnan(constant.p_t)
  assert constant.p_wilcoxon == 0.25


def test_what_rounding_alone_separates_is_equal():
  """Also of scores that are not between 0 and 1, such as volumes."""
  first = np.array([123.4, 77.7, 512.3, 900.1])
  second = first + 1000.1
  assert np.ptp(second - first) > 0
  assert math.isnan(paired_tests(first, second).p_t)


@pytest.mark.parametrize(
  ("first", "second"),
  [
    ([0.5, 0.6], [0.5]),
    ([0.5, 0.6], [0.5, 0.6, 0.7]),
    ([0.5, 0.6], [0.5, math.nan]),
    ([0.5, 0.6], [0.5, math.inf]),
    ([0.5, 0.6], [[0.5, 0.5]]),
    ([[0.5, 0.6]], [[0.5, 0.5]]),
    (0.5, 0.6),
  ],
)
def test_scores_that_are_no_pairs_are_refused(first, second):
  with pytest.raises(ValueError, match="one length"):
    paired_tests(first, second)


def test_holm_by_hand():
  assert adjust_by_holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
  assert adjust_by_holm([0.6, 0.9]) == pytest.approx([1.0, 1.0])
  assert adjust_by_holm([math.nan, 0.02])[1] == 0.02
  assert math.isnan(adjust_by_holm([math.nan, 0.02])[0])
  assert adjust_by_holm([]) == []
