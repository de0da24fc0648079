"""Stability of ranks against cases counted by hand, and Kendall's tau by SciPy."""

import numpy as np
import pytest
from scipy import stats

from attn_unet_jax.evaluation.intervals import resample_means
from attn_unet_jax.evaluation.ranks import has_ranks, rank_runs


def test_two_cases_by_hand():
  """The second run wins where case 0 alone is drawn, a quarter of the draws; the third never."""
  scores = np.array([[0.5, 0.6, 0.1], [0.9, 0.7, 0.1]])
  found = rank_runs(scores, "dsc")
  assert (found.cases, found.ranks) == (2, (1, 2, 3))
  assert found.first_shares == pytest.approx((0.75, 0.25, 0), abs=0.04)  # four standard errors
  # One pair of three is turned in a quarter of the draws: tau is 1/3 there.
  assert found.tau == pytest.approx(0.75 + 0.25 / 3, abs=0.03)
  assert (found.tau_low, found.tau_high) == pytest.approx((1 / 3, 1))


def test_low_distances_rank_first():
  scores = np.array([[1.0, 2.0, 3.0], [1.5, 2.0, 2.5]])
  assert rank_runs(scores, "hd95_mm").ranks == (1, 2, 3)
  assert rank_runs(scores, "nsd_2mm").ranks == (3, 2, 1)
  assert has_ranks("nsd_2mm")
  assert not has_ranks("volume_error_ml")


def test_equal_runs_share_their_rank_and_the_draws():
  found = rank_runs(np.array([[0.3, 0.1 + 0.2, 0.1], [0.8, 0.8, 0.2]]), "dsc")
  assert found.ranks == (1, 1, 3)
  assert found.first_shares == (0.5, 0.5, 0)


def test_tau_by_scipy():
  scores = np.random.default_rng(0).random((3, 5))
  draws, counts = np.unique(resample_means(scores).round(12), axis=0, return_counts=True)
  taus = [stats.kendalltau(scores.mean(axis=0), draw).statistic for draw in draws]
  assert rank_runs(scores, "dsc").tau == pytest.approx(np.average(taus, weights=counts))
