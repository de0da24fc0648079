"""Bootstrap intervals of means over cases, each of which counts as one patient.

The percentile method (Efron 1979): cases are drawn with replacement, as many as there are, and the
mean of each draw is taken; the interval holds the middle 95 % of these means. It says how far the
mean would move with other patients of the same kind. It says nothing about another training.
"""

import math
from functools import lru_cache

import numpy as np

RESAMPLES = 2000
_SEED = 0  # fixed: the same scores have the same interval, in every run and on every start
_PERCENTILES = (2.5, 97.5)


def mean_interval(scores: np.ndarray) -> tuple[float, float]:
  """Returns the 95 % interval of the mean of scores [N]; NaN for fewer than two."""
  if len(scores) < 2:
    return math.nan, math.nan
  low, high = np.percentile(resample_means(scores), _PERCENTILES)
  return float(low), float(high)


def resample_means(scores: np.ndarray) -> np.ndarray:
  """Returns the means [RESAMPLES, ...] of resampled cases.

  Scores of one case that stand side by side are drawn together, so that runs can be compared.

  Args:
    scores: finite scores [N, ...] of at least one case.
  """
  means: np.ndarray = _count_draws(len(scores)) @ scores / len(scores)
  return means


@lru_cache(maxsize=4)
def _count_draws(cases: int) -> np.ndarray:
  """Returns how often each of the cases is drawn in each resample [RESAMPLES, cases]."""
  # Counts, so that all means are one product of matrices; cached, for all scores share the draws.
  drawn = np.random.default_rng(_SEED).integers(0, cases, (RESAMPLES, cases))
  flat = (drawn + cases * np.arange(RESAMPLES)[:, None]).ravel()
  counts = np.bincount(flat, minlength=RESAMPLES * cases)
  return counts.reshape(RESAMPLES, cases).astype(np.float64)
