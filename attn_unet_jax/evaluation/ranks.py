"""How stable the ranks of several runs are, if other patients had been scored.

The cases are drawn with replacement, the same cases for all runs, and the runs are ranked by the
mean of each draw (Wiesenfarth et al. 2021, "Methods and open-source toolkit for analyzing and
visualizing challenge results").
"""

from typing import NamedTuple

import numpy as np

from attn_unet_jax.evaluation.intervals import resample_means

# Scores that are the better the lower they are. The sign of an error says nothing of its size, and
# a volume is neither good nor bad: these have no ranks.
_LOW_IS_BETTER = ("assd_mm", "assd_voxels_mm", "ece", "hd_mm", "hd95_mm", "volume_error_abs_ml")
_WITHOUT_RANKS = ("volume_ml", "reference_volume_ml", "volume_error_ml")
_PERCENTILES = (2.5, 97.5)


class RankStability(NamedTuple):
  """The ranks of runs by their mean score, and how often bootstrap draws agree with them.

  Attributes:
    cases: that all runs have scored.
    ranks: by run, from 1; equal means share the better rank.
    first_shares: by run, the share of draws in which it ranks first, in [0, 1]; runs that are first
      together share the draw.
    tau: mean over draws of Kendall's tau between the draw's ranks and `ranks`, in [-1, 1].
    tau_low, tau_high: its 2.5th and 97.5th percentiles.
  """

  cases: int
  ranks: tuple[int, ...]
  first_shares: tuple[float, ...]
  tau: float
  tau_low: float
  tau_high: float


def has_ranks(metric: str) -> bool:
  """Returns whether one end of a score's scale is the better one."""
  return metric not in _WITHOUT_RANKS


def rank_runs(scores: np.ndarray, metric: str) -> RankStability:
  """Ranks runs by their mean score, and in each bootstrap draw of the cases again.

    tau = (pairs of runs in the same order - pairs in the opposite order) / pairs    (tau-a)

  Args:
    scores: of the same cases by every run [cases, runs], finite, at least one case and two runs.
    metric: the score's name, which tells whether low or high is better.
  """
  signed = -scores if metric in _LOW_IS_BETTER else scores
  means, draws = signed.mean(axis=0), resample_means(signed)
  # Equal scores of two runs differ by the rounding of their sums, which is no order.
  means, draws = means.round(12), draws.round(12)
  best = draws == draws.max(axis=1, keepdims=True)
  first, second = np.triu_indices(scores.shape[1], 1)
  order = np.sign(means[first] - means[second])
  taus = (np.sign(draws[:, first] - draws[:, second]) * order).mean(axis=1)
  low, high = np.percentile(taus, _PERCENTILES)
  return RankStability(
    cases=len(scores),
    ranks=tuple(int((means > mean).sum()) + 1 for mean in means),
    first_shares=tuple((best / best.sum(axis=1, keepdims=True)).mean(axis=0).tolist()),
    tau=float(taus.mean()),
    tau_low=float(low),
    tau_high=float(high),
  )
