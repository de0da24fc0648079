"""Bootstrap intervals against a case counted by hand, and against SciPy."""

import math

import numpy as np
import pytest
from scipy import stats

from attn_unet_jax.evaluation import intervals


def test_two_cases_by_hand():
  """Of two cases 0 and 1 a draw has the mean 0, 1/2 or 1, with probabilities 1/4, 1/2, 1/4."""
  means = intervals.resample_means(np.array([0.0, 1.0]))
  assert means.shape == (2000,)
  shares = [np.mean(means == value) for value in (0, 0.5, 1)]
  assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.04)  # four standard errors
  assert set(means) == {0, 0.5, 1}
  assert intervals.mean_interval(np.array([0.0, 1.0])) == (0, 1)


@pytest.mark.parametrize("cases", [5, 40])
def test_an_interval_by_scipy(cases):
  scores = np.random.default_rng(cases).beta(8, 2, cases)
  theirs = stats.bootstrap(
    (scores,), np.mean, n_resamples=2000, method="percentile", random_state=np.random.default_rng(1)
  )
  # Both are drawn at random; each end has an error of about 5 % of the mean's standard deviation.
  close = 0.2 * scores.std() / math.sqrt(cases)
  expected = theirs.confidence_interval
  assert intervals.mean_interval(scores) == pytest.approx(tuple(expected), abs=close)


def test_the_interval_of_scores_is_always_the_same():
  scores = np.random.default_rng(0).random(12)
  first = intervals.mean_interval(scores)
  intervals._count_draws.cache_clear()
  assert intervals.mean_interval(scores) == first


def test_scores_of_one_case_are_drawn_together():
  scores = np.random.default_rng(0).random(9)
  both = intervals.resample_means(np.stack([scores, scores + 0.1], axis=1))
  assert both[:, 1] - both[:, 0] == pytest.approx(np.full(2000, 0.1))


@pytest.mark.parametrize("scores", [[], [0.5]])
def test_fewer_than_two_cases_have_no_interval(scores):
  assert np.isnan(intervals.mean_interval(np.array(scores))).all()
