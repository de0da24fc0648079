"""Compares runs: differences of their configs, their scores, and tests against the first run."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from attn_unet_jax.evaluation.compared_runs import ScoredRun
from attn_unet_jax.evaluation.paired_tests import PairedTest, adjust_by_holm, paired_tests
from attn_unet_jax.evaluation.ranks import RankStability, has_ranks, rank_runs
from attn_unet_jax.evaluation.summary import ScoreSummary, summarise_score
from attn_unet_jax.runtime.errors import UserError

_VOLUME, _REFERENCE = "volume_ml", "reference_volume_ml"
# Volumes are stored with six digits: a larger difference means another case or another label.
_SAME_REFERENCE = 1e-4
# By field of a run how it was scored, what that is, and the flag that makes it equal.
_CONDITIONS = (
  ("tta", "mirror images", "--tta"),
  ("tta_scales", "scaled copies", "--tta_scales"),
  ("unprocessed", "steps after the network left out", "--no_postprocess"),
)


@dataclass(frozen=True)
class ComparisonRow:
  """A row of the table: one run and one class.

  Attributes:
    config: the values that differ between runs, by key; None if a run has no such key.
    spread: by metric, the summary of the run's own cases; undefined scores are left out.
    tests: of the first metric against the first run, over the cases of both; None in the first
      run's own row.
    p_holm: `tests.p_wilcoxon` adjusted for the number of runs that are tested.
    cases: number of the run's cases, with those that have no score.
    rank: by the mean of the first metric, over the cases of all runs; None without ranks.
    first_share: the share of bootstrap draws of these cases in which the run ranks first.
  """

  run: str
  name: str
  step: int | None
  config: Mapping[str, Any]
  spread: Mapping[str, ScoreSummary]
  tests: PairedTest | None
  p_holm: float
  cases: int = 0
  rank: int | None = None
  first_share: float = math.nan


@dataclass(frozen=True)
class ComparisonTable:
  """A table of rows, with the notes that a reader needs.

  Attributes:
    metrics: its scores; the first is tested.
    rows: class by class, run by run.
    notes: sentences without a full stop.
    ranks: the stability of the ranks by class, where more than two runs are compared.
  """

  metrics: Sequence[str]
  rows: Sequence[ComparisonRow]
  notes: Sequence[str]
  ranks: Mapping[str, RankStability] = field(default_factory=dict)


def compare_scores(runs: Sequence[ScoredRun], metrics: Sequence[str]) -> ComparisonTable:
  """Compares runs with the first of them.

  Args:
    runs: two runs or more.
    metrics: columns of their scores; the first is tested. One that some run lacks is left out,
      and a note says so.

  Raises:
    UserError: the runs have no such metric or no class in common.
  """
  metrics, notes = _choose_metrics(runs, metrics)
  classes = [name for name in runs[0].scores if all(name in run.scores for run in runs)]
  if not classes:
    found = "; ".join(f"{run.name}: {', '.join(run.scores)}" for run in runs)
    raise UserError(f"--workdirs: no class in common ({found}); name runs of the same classes")
  differing = list_differences(runs)
  rows: list[ComparisonRow] = []
  ranks: dict[str, RankStability] = {}
  for name in classes:
    tests = [_test_against(runs[0], run, name, metrics[0], notes) for run in runs[1:]]
    # The runs that are tested form one family of tests for each class.
    adjusted = adjust_by_holm([test.p_wilcoxon for test in tests])
    if stability := _rank_on_shared_cases(runs, name, metrics[0], notes):
      ranks[name] = stability
    places = _list_places(stability, len(runs))
    for run, test, p, place in zip(
      runs, [None, *tests], [math.nan, *adjusted], places, strict=True
    ):
      scores = run.scores[name].values()
      spread = {metric: summarise_score([case[metric] for case in scores]) for metric in metrics}
      differs = differing[run.name]
      row = ComparisonRow(run.name, name, run.step, differs, spread, test, p, len(scores), *place)
      rows.append(row)
      notes += _note_missed_cases(run, name)
  return ComparisonTable(metrics, rows, [*_rule_notes(runs, classes), *notes], ranks)


def list_differences(runs: Sequence[ScoredRun]) -> dict[str, dict[str, Any]]:
  """Returns by run the values of all keys whose values differ between runs that have a config."""
  configs = [run.config for run in runs if run.config]
  # A dict removes duplicates and keeps the order of the config, which the columns follow.
  keys = list(dict.fromkeys(key for config in configs for key in config))
  unequal = [key for key in keys if any(c.get(key) != configs[0].get(key) for c in configs[1:])]
  return {run.name: {key: run.config.get(key) for key in unequal} for run in runs}


def _choose_metrics(
  runs: Sequence[ScoredRun], metrics: Sequence[str]
) -> tuple[list[str], list[str]]:
  """Returns the metrics that every run has, and a note about each of the others."""
  # The columns of a table are those of all its cases, so that any case tells them.
  known = {run.name: next(iter(next(iter(run.scores.values())).values())) for run in runs}
  lacking = {metric: [name for name in known if metric not in known[name]] for metric in metrics}
  chosen = [metric for metric in metrics if not lacking[metric]]
  for name, columns in known.items():
    # A score that no run has is a typing error. One that an earlier version did not write is none,
    # as long as something is left to compare.
    unknown = [
      metric
      for metric in metrics
      if metric not in columns and (not chosen or len(lacking[metric]) == len(known))
    ]
    if unknown or not metrics:
      raise UserError(
        f"--metrics: {name} has no {', '.join(unknown)}; its scores are {', '.join(columns)}"
      )
  notes = [
    f"{metric} is left out, for {', '.join(names)} lacks it; evaluate again to compare it"
    for metric, names in lacking.items()
    if names
  ]
  if lacking[metrics[0]]:
    notes.append(f"{chosen[0]} is tested instead of {metrics[0]}")
  return chosen, notes


def _rank_on_shared_cases(
  runs: Sequence[ScoredRun], name: str, metric: str, notes: list[str]
) -> RankStability | None:
  """Ranks more than two runs on the cases that all of them scored against the same reference.

  Notes the cases that have no place in the ranks.
  """
  if len(runs) < 3 or not has_ranks(metric):
    return None
  first, *others = (run.scores[name] for run in runs)
  shared = [
    case
    for case in sorted(first)
    if all(case in other and not _other_reference(first[case], other[case]) for other in others)
  ]
  scores = np.array([[table[case][metric] for case in shared] for table in (first, *others)]).T
  defined = scores[~np.isnan(scores).any(axis=1)]
  if len(defined) < 2:
    notes.append(f"{name}: no ranks, for {metric} of all runs is defined in {len(defined)} cases")
    return None
  scored = set(first).union(*others)
  if left_out := len(scored) - len(defined):
    notes.append(
      f"{name}: ranks are over {len(defined)} of {len(scored)} cases; in the other {left_out} a "
      f"run has no {metric}, or another reference"
    )
  return rank_runs(defined, metric)


def _list_places(stability: RankStability | None, runs: int) -> list[tuple[int | None, float]]:
  """Returns rank and share of first ranks of each run."""
  if stability is None:
    return [(None, math.nan)] * runs
  return list(zip(stability.ranks, stability.first_shares, strict=True))


def _test_against(
  first: ScoredRun, run: ScoredRun, name: str, metric: str, notes: list[str]
) -> PairedTest:
  """Tests a run against the first on the cases of both, and notes the cases that are left out."""
  a, b = first.scores[name], run.scores[name]
  # Sorted: a set of texts has another order in every process, and sums are rounded by theirs.
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


def _note_missed_cases(run: ScoredRun, name: str) -> Iterator[str]:
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
  """Yields notes about what was different when the runs were scored.

  Rules for empty masks are told where they matter, which is where a reference is empty.
  """
  scored = [case for run in runs for name in classes for case in run.scores[name].values()]
  if len({run.empty_masks for run in runs}) > 1 and any(
    case.get(_REFERENCE) == 0 for case in scored
  ):
    rules = ", ".join(f"{run.name}: {run.empty_masks}" for run in runs)
    yield (
      f"the runs are scored by different rules for empty masks ({rules}), and some reference is "
      "empty; evaluate them again with one --empty_masks"
    )
  for name, what, flag in _CONDITIONS:
    if len({getattr(run, name) for run in runs}) > 1:
      said = {True: "yes", False: "no", "": "none"}
      values = {run.name: getattr(run, name) for run in runs}
      found = "; ".join(f"{run}: {said.get(value, value)}" for run, value in values.items())
      yield f"the runs are scored with different {what} ({found}); evaluate them alike, by {flag}"


def _other_reference(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
  # Tables without volumes cannot be checked.
  if _REFERENCE not in a or _REFERENCE not in b:
    return False
  return abs(a[_REFERENCE] - b[_REFERENCE]) > _SAME_REFERENCE * max(a[_REFERENCE], b[_REFERENCE])
