"""Compares runs: differences of their configs, their scores, and tests against the first run."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attn_unet_jax.evaluation.compared_runs import ScoredRun
from attn_unet_jax.evaluation.paired_tests import PairedTest, adjust_by_holm, paired_tests
from attn_unet_jax.runtime.errors import UserError

_VOLUME, _REFERENCE = "volume_ml", "reference_volume_ml"
# Volumes are stored with six digits: a larger difference means another case or another label.
_SAME_REFERENCE = 1e-4


@dataclass(frozen=True)
class ComparisonRow:
  """A row of the table: one run and one class.

  Attributes:
    config: the values that differ between runs, by key; None if a run has no such key.
    spread: by metric, mean, sd (divisor n - 1) and n of the run's own cases; undefined scores
      are left out.
    tests: of the first metric against the first run, over the cases of both; None in the first
      run's own row.
    p_holm: `tests.p_wilcoxon` adjusted for the number of runs that are tested.
    cases: number of the run's cases, with those that have no score.
  """

  run: str
  name: str
  step: int | None
  config: Mapping[str, Any]
  spread: Mapping[str, tuple[float, float, int]]
  tests: PairedTest | None
  p_holm: float
  cases: int = 0


@dataclass(frozen=True)
class ComparisonTable:
  """A table of rows, with the notes that a reader needs."""

  metrics: Sequence[str]
  rows: Sequence[ComparisonRow]
  notes: Sequence[str]


def compare_scores(runs: Sequence[ScoredRun], metrics: Sequence[str]) -> ComparisonTable:
  """Compares runs with the first of them.

  Args:
    runs: two runs or more.
    metrics: columns of their scores; the first is tested.

  Raises:
    UserError: a run lacks a metric, or the runs have no class in common.
  """
  _require_metrics(runs, metrics)
  classes = [name for name in runs[0].scores if all(name in run.scores for run in runs)]
  if not classes:
    found = "; ".join(f"{run.name}: {', '.join(run.scores)}" for run in runs)
    raise UserError(f"--workdirs: no class in common ({found}); name runs of the same classes")
  differing = list_differences(runs)
  rows: list[ComparisonRow] = []
  notes: list[str] = []
  for name in classes:
    tests = [_test_against(runs[0], run, name, metrics[0], notes) for run in runs[1:]]
    # The runs that are tested form one family of tests for each class.
    adjusted = adjust_by_holm([test.p_wilcoxon for test in tests])
    for run, test, p in zip(runs, [None, *tests], [math.nan, *adjusted], strict=True):
      spread = {metric: _summarise_scores(run, name, metric) for metric in metrics}
      cases = len(run.scores[name])
      rows.append(
        ComparisonRow(run.name, name, run.step, differing[run.name], spread, test, p, cases)
      )
      notes += _missed_notes(run, name)
  return ComparisonTable(metrics, rows, [*_rule_notes(runs, classes), *notes])


def list_differences(runs: Sequence[ScoredRun]) -> dict[str, dict[str, Any]]:
  """Returns by run the values of all keys whose values differ between runs that have a config."""
  configs = [run.config for run in runs if run.config]
  # A dict removes duplicates and keeps the order of the config, which the columns follow.
  keys = list(dict.fromkeys(key for config in configs for key in config))
  unequal = [key for key in keys if any(c.get(key) != configs[0].get(key) for c in configs[1:])]
  return {run.name: {key: run.config.get(key) for key in unequal} for run in runs}


def _require_metrics(runs: Sequence[ScoredRun], metrics: Sequence[str]) -> None:
  for run in runs:
    # The columns of a table are those of all its cases, so that any case tells them.
    first = next(iter(next(iter(run.scores.values())).values()))
    unknown = [metric for metric in metrics if metric not in first]
    if unknown or not metrics:
      raise UserError(
        f"--metrics: {run.name} has no {', '.join(unknown)}; its scores are {', '.join(first)}"
      )


def _summarise_scores(run: ScoredRun, name: str, metric: str) -> tuple[float, float, int]:
  scores = np.array([case[metric] for case in run.scores[name].values()])
  defined = scores[~np.isnan(scores)]
  # A mean over no case is NaN without NumPy's warning; one case has no sd.
  mean = float(defined.mean()) if defined.size else math.nan
  return mean, float(defined.std(ddof=1)) if defined.size > 1 else math.nan, defined.size


def _test_against(
  first: ScoredRun, run: ScoredRun, name: str, metric: str, notes: list[str]
) -> PairedTest:
  """Tests a run against the first on the cases of both, and notes the cases that are left out."""
  a, b = first.scores[name], run.scores[name]
  both = sorted(a.keys() & b.keys())
  if alone := len(a.keys() ^ b.keys()):
    notes.append(
      f"{name}: {first.name} and {run.name} share {len(both)} cases, {alone} are scored in only "
      "one of them; means are over each run's own cases, tests over the shared ones"
    )
  other = [case for case in both if _other_reference(a[case], b[case])]
  if other:
    notes.append(
      f"{name}: {first.name} and {run.name} have different references for {len(other)} cases "
      f"({', '.join(other[:3])}{', ...' if len(other) > 3 else ''}); they are not tested"
    )
  # Paired tests need the same task in both runs, hence the same reference.
  pairs = [(a[case][metric], b[case][metric]) for case in both if case not in other]
  defined = [pair for pair in pairs if not any(map(math.isnan, pair))]
  if len(defined) < len(pairs):
    notes.append(
      f"{name}: {metric} of {first.name} or {run.name} is undefined in {len(pairs) - len(defined)} "
      "shared cases; they are not tested"
    )
  return paired_tests([x for x, _ in defined], [y for _, y in defined])


def _missed_notes(run: ScoredRun, name: str) -> Iterator[str]:
  """Yields a note if cases are missed altogether: their precision and distances are undefined."""
  cases = list(run.scores[name].values())
  if all({_VOLUME, _REFERENCE} <= case.keys() for case in cases):
    present = [case for case in cases if case[_REFERENCE] > 0]
    if missed := sum(not case[_VOLUME] for case in present):
      yield (
        f"{name}: {run.name} missed {missed} of {len(present)} cases altogether, which have no "
        "precision and no distance; they count in recall and DSC, as 0"
      )


def _rule_notes(runs: Sequence[ScoredRun], classes: Sequence[str]) -> Iterator[str]:
  """Yields a note if rules for empty masks differ and a reference is empty, where they matter."""
  scored = [case for run in runs for name in classes for case in run.scores[name].values()]
  if len({run.empty_masks for run in runs}) > 1 and any(
    case.get(_REFERENCE) == 0 for case in scored
  ):
    rules = ", ".join(f"{run.name}: {run.empty_masks}" for run in runs)
    yield (
      f"the runs are scored by different rules for empty masks ({rules}), and some reference is "
      "empty; evaluate them again with one --empty_masks"
    )


def _other_reference(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
  # Tables without volumes cannot be checked.
  if _REFERENCE not in a or _REFERENCE not in b:
    return False
  return abs(a[_REFERENCE] - b[_REFERENCE]) > _SAME_REFERENCE * max(a[_REFERENCE], b[_REFERENCE])
