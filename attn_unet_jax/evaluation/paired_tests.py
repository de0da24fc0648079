"""Tests whether two systems differ on the cases that both were scored on."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

_MOST_EXACT = 50  # differences that the exact distribution is counted for
_DIGITS = 12  # of the largest score, by which differences are told apart


class PairedTest(NamedTuple):
  """The result of a paired comparison.

  Attributes:
    n: number of pairs.
    difference: mean of second minus first.
    p_wilcoxon, p_t: two-sided p values of the signed rank test and of the t test; NaN if the
      test says nothing: fewer than two pairs, no difference at all, or (t) all differences equal.
  """

  n: int
  difference: float
  p_wilcoxon: float
  p_t: float


def paired_tests(first: Sequence[float], second: Sequence[float]) -> PairedTest:
  """Compares scores of the same cases, d_i = second_i - first_i.

    t = mean(d) / (sd(d) / sqrt(n)), Student's t with n - 1 degrees of freedom;
    W = sum of the ranks of |d_i| over d_i > 0, differences of 0 left out (Wilcoxon 1945),

  whose distribution is exact for up to 50 differences that are not 0, also where some are tied;
  beyond that it is normal (`scipy.stats.wilcoxon`). The t test assumes normal differences, the
  signed rank test symmetric ones. Differences of scores near 1 are often not normal, so prefer the
  signed rank test.

  Args:
    first: a score per case.
    second: a score per case of the other system, in the same order.

  Raises:
    ValueError: the lengths differ, or a score is not finite.
  """
  a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
  if a.shape != b.shape or a.ndim != 1 or not np.isfinite(a + b).all():
    raise ValueError(f"paired scores are finite and of one length, not {a.shape} and {b.shape}")
  difference = b - a
  n = len(difference)
  mean = float(difference.mean()) if n else math.nan
  # Neither test is defined then.
  if n < 2 or not difference.any():
    return PairedTest(n, mean, math.nan, math.nan)
  # Equal differences differ by rounding alone; their t would be huge and mean nothing.
  equal = np.ptp(difference) <= 1e-12 * np.abs(difference).max()
  p_t = math.nan if equal else float(stats.ttest_rel(b, a).pvalue)
  # Distances that all differ by one voxel would otherwise have their ranks by rounding.
  rounded = difference.round(_DIGITS - math.ceil(math.log10(np.abs([a, b]).max())))
  return PairedTest(n, mean, _test_signed_ranks(rounded[rounded != 0]), p_t)


def _test_signed_ranks(differences: np.ndarray) -> float:
  """Returns the two-sided p value of the signed rank test; NaN without a difference.

  Args:
    differences: [N], none of them 0, equal ones to the bit.
  """
  if not 0 < len(differences) <= _MOST_EXACT:
    return float(stats.wilcoxon(differences).pvalue) if len(differences) else math.nan
  # Doubled, ranks that several share are whole. `ways` counts the signs that have each sum: 2^50 in
  # all, which float64 holds exactly.
  ranks = (2 * stats.rankdata(np.abs(differences))).astype(np.intp)
  ways = np.zeros(int(ranks.sum()) + 1)
  ways[0] = 1
  for rank in ranks.tolist():
    ways[rank:] += ways[:-rank]
  rising = int(ranks[differences > 0].sum())
  least = min(rising, len(ways) - 1 - rising)
  return min(1.0, 2 * float(ways[: least + 1].sum()) / 2.0 ** len(differences))


def adjust_by_holm(p_values: Sequence[float]) -> list[float]:
  """Adjusts p values for their number m by Holm's step-down rule (1979).

    adjusted of the k-th smallest = max over j <= k of min(1, (m - j + 1) p_(j))

  NaN stays NaN and is not counted.
  """
  # The running maximum keeps the order of the p values after adjustment.
  order = sorted((p, at) for at, p in enumerate(p_values) if not math.isnan(p))
  adjusted, least = [math.nan] * len(p_values), 0.0
  for rank, (p, at) in enumerate(order):
    least = max(least, min(1.0, (len(order) - rank) * p))
    adjusted[at] = least
  return adjusted
