"""Summarises scores over cases: means with intervals, counts of missed cases, the worst cases."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from attn_unet_jax.evaluation.intervals import mean_interval
from attn_unet_jax.evaluation.overlap import Scores

_WORST = 3  # cases that are named


class ScoreSummary(NamedTuple):
  """The distribution of a score over the cases that have it.

  Attributes:
    mean: NaN for n = 0.
    sd: of the sample: the divisor is n - 1; NaN for n < 2.
    ci95_low, ci95_high: the bootstrap interval of the mean; NaN for n < 2.
    median, quartile_1, quartile_3: NaN for n = 0.
    n: the cases that have the score.
    undefined: the cases that have not, whose score is NaN.
  """

  mean: float
  sd: float
  ci95_low: float
  ci95_high: float
  median: float
  quartile_1: float
  quartile_3: float
  n: int
  undefined: int


class ClassCounts(NamedTuple):
  """The cases of one class.

  Attributes:
    cases: all of them.
    with_class: those whose reference has the class.
    missed: those of them whose prediction has none of it.
    false_alarms: those whose prediction alone has it.
  """

  cases: int
  with_class: int
  missed: int
  false_alarms: int


class CaseScore(NamedTuple):
  """A case and its DSC."""

  case: str
  dsc: float


def summarise_scores(rows: Sequence[Scores]) -> dict[str, dict[str, ScoreSummary]]:
  """Summarises by class and metric the scores of cases.

  Args:
    rows: the scores of each case by `score_case`, all with the same classes and metrics.

  Raises:
    ValueError: no rows.
  """
  if not rows:
    raise ValueError("no cases to summarise")
  return {
    name: {metric: summarise_score([row[name][metric] for row in rows]) for metric in metrics}
    for name, metrics in rows[0].items()
  }


def summarise_score(scores: Sequence[float]) -> ScoreSummary:
  """Summarises one score of several cases, NaN where it is undefined."""
  defined = np.array([score for score in scores if not math.isnan(score)])
  n = defined.size
  # NumPy refuses percentiles of nothing, and warns of its mean.
  quartiles = np.percentile(defined, (25, 50, 75)).tolist() if n else [math.nan] * 3
  low, high = mean_interval(defined)
  return ScoreSummary(
    mean=float(defined.mean()) if n else math.nan,
    sd=float(defined.std(ddof=1)) if n > 1 else math.nan,
    ci95_low=low,
    ci95_high=high,
    median=quartiles[1],
    quartile_1=quartiles[0],
    quartile_3=quartiles[2],
    n=n,
    undefined=len(scores) - n,
  )


def list_worst_cases(rows: Mapping[str, Scores]) -> dict[str, list[CaseScore]]:
  """Lists by class the cases of the lowest DSC, the worst first.

  Args:
    rows: scores by case id.
  """
  classes = next(iter(rows.values()), {})
  return {
    name: _list_lowest({case: row[name]["dsc"] for case, row in rows.items()}) for name in classes
  }


def _list_lowest(scores: Mapping[str, float]) -> list[CaseScore]:
  found = [CaseScore(case, score) for case, score in scores.items() if not math.isnan(score)]
  # By name among equals, so that the order of the cases does not matter.
  return sorted(found, key=lambda one: (one.dsc, one.case))[:_WORST]


def count_cases(rows: Sequence[Scores]) -> dict[str, ClassCounts]:
  """Counts by class the cases that have it, that are missed altogether, and the false alarms."""
  return {name: _count_class([row[name] for row in rows]) for name in (rows[0] if rows else ())}


def _count_class(scores: Sequence[Mapping[str, float]]) -> ClassCounts:
  pairs = [(one["volume_ml"] > 0, one["reference_volume_ml"] > 0) for one in scores]
  return ClassCounts(
    cases=len(pairs),
    with_class=sum(occurs for _, occurs in pairs),
    missed=pairs.count((False, True)),
    false_alarms=pairs.count((True, False)),
  )
