"""Pools the scores of a run of all folds: each case is scored by the fold that did not see it."""

import math
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from attn_unet_jax.cases.folds import read_folds
from attn_unet_jax.evaluation.compared_runs import read_scores
from attn_unet_jax.evaluation.overlap import Scores
from attn_unet_jax.evaluation.quality_scores import (
  QUALITY,
  Estimates,
  rank_estimates,
  read_estimates,
  write_estimates,
)
from attn_unet_jax.evaluation.scoring import SUMMARY, TABLE, write_scores
from attn_unet_jax.runs.folder import name_fold
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import read_json_object
from attn_unet_jax.workflows.fold_runs import list_fold_runs

# Of scoring, which the folds must have in common.
_NETWORK_RULES = ("tta", "tta_scales", "no_postprocess")
_RULES = ("empty_masks", *_NETWORK_RULES)
_AGAIN = "evaluate the run again"


class _FoldScores(NamedTuple):
  rows: dict[str, Scores]
  summary: dict[str, Any]
  estimates: Estimates


def check_pooling(workdir: Path, part: str) -> None:
  """Refuses, before the folds are scored, a part whose scores cannot be pooled.

  Args:
    workdir: a run of all folds.
    part: the part of the folds: training, validation or test.

  Raises:
    UserError: a case is in that part of several folds.
  """
  fold_of = dict[str, int]()
  for number, fold in enumerate(read_folds(workdir / "folds.json")["folds"]):
    for case in fold[part]:
      # One fold may name a case twice, which is scored once.
      if fold_of.setdefault(case, number) != number:
        raise _refuse_twice(workdir, part, case, (fold_of[case], number))


def remove_pooled(workdir: Path, part: str) -> None:
  """Removes the pooled scores of a part, before a fold is scored anew."""
  for name in (TABLE, SUMMARY, QUALITY):
    (_find_folder(workdir, part) / name).unlink(missing_ok=True)


def pool_scores(workdir: Path, part: str = "test") -> None:
  """Writes `evaluation/` of a run of all folds from that of each fold, and prints the means.

  Args:
    workdir: the run.
    part: the part of the folds: training, validation or test.

  Raises:
    UserError: a fold has no scores, the folds were scored by other rules, or a case has the scores
      of several folds.
  """
  folders = list_fold_runs(workdir)
  found = [_read_fold(folder, part) for folder in folders]
  for folder, one in zip(folders[1:], found[1:], strict=True):
    _check_same_rules(folders[0], found[0], folder, one)
  fold_of, rows = dict[str, int](), dict[str, Scores]()
  for number, one in enumerate(found):
    # Lists of folds that a user wrote may test a case twice, which would then weigh double.
    if twice := sorted(one.rows.keys() & rows.keys()):
      raise _refuse_twice(workdir, part, twice[0], (fold_of[twice[0]], number))
    rows |= one.rows
    fold_of |= dict.fromkeys(one.rows, number)
  means = [_average_dsc(one.rows) for one in found]
  about: dict[str, Any] = {
    "part": part,
    "folds": [
      {"fold": number, "cases": len(one.rows), "dsc": dsc, **_describe_network(one.summary)}
      for number, (one, dsc) in enumerate(zip(found, means, strict=True))
    ],
  }
  about |= {key: found[0].summary[key] for key in _NETWORK_RULES if key in found[0].summary}
  # Each fold has learnt an estimate of its own, and each case has that of its fold.
  estimates = {case: one for fold in found for case, one in fold.estimates.items()}
  ranked = rank_estimates(estimates, rows)
  if ranked:
    about["quality"] = {name: one._asdict() for name, one in ranked.items()}
  rule = found[0].summary.get("empty_masks", "reference")
  folder = _find_folder(workdir, part)
  write_scores(rows, folder, about, rule, fold_of)
  write_estimates(folder, estimates, rows, ranked)
  # All folds have the classes of the first, as their rules were compared.
  for name in means[0]:
    said = ", ".join(_format_mean(mean[name]) for mean in means)
    print_line(f"{name}, mean dsc of the folds: {said}")


def _refuse_twice(workdir: Path, part: str, case: str, folds: tuple[int, int]) -> UserError:
  one, other = folds
  return UserError(
    f"{workdir}: {case} is a {part} case of folds {one} and {other}, and pooled scores have each "
    "case once; score the folds one by one: "
    f"--workdir={workdir / name_fold(one)} --part={part}"
  )


def _find_folder(run: Path, part: str) -> Path:
  """Returns the folder of the scores of a part; those of the test lie in `evaluation/` itself."""
  return run / "evaluation" / ("" if part == "test" else part)


def _read_fold(folder: Path, part: str) -> _FoldScores:
  evaluation = _find_folder(folder, part)
  flag = "" if part == "test" else f" --part={part}"
  by_class = read_scores(evaluation / TABLE, f"--workdir={folder}{flag}")
  rows: dict[str, Scores] = {}
  for name, cases in by_class.items():
    for case, scores in cases.items():
      rows.setdefault(case, {})[name] = dict(scores)
  estimates = {case: one for case, one in read_estimates(evaluation).items() if case in rows}
  return _FoldScores(rows, read_json_object(evaluation / SUMMARY, _AGAIN), estimates)


def _check_same_rules(one: Path, first: _FoldScores, other: Path, scored: _FoldScores) -> None:
  ours, theirs = _describe_rules(first), _describe_rules(scored)
  if ours != theirs:
    key = next(key for key in ours if ours[key] != theirs[key])
    raise UserError(
      f"{other}: was scored with {key} {theirs[key]}, and {one} with {ours[key]}; {_AGAIN}"
    )


def _describe_rules(found: _FoldScores) -> dict[str, object]:
  # The tolerances of the surface dice are columns: where they differ, it shows here.
  columns = {name: sorted(scores) for name, scores in next(iter(found.rows.values())).items()}
  return {"scores": columns, **{key: found.summary.get(key) for key in _RULES}}


def _describe_network(summary: Mapping[str, Any]) -> dict[str, Any]:
  return {key: summary[key] for key in ("checkpoint_step", "postprocessing") if key in summary}


def _average_dsc(rows: Mapping[str, Scores]) -> dict[str, float | None]:
  """Returns the mean DSC of each class; None where no case has one."""
  found: dict[str, list[float]] = {}
  for scores in rows.values():
    for name, metrics in scores.items():
      value = metrics.get("dsc", math.nan)
      # The DSC of a class that is in neither mask is undefined, and counts for nothing.
      found.setdefault(name, []).extend([] if math.isnan(value) else [value])
  return {name: statistics.fmean(some) if some else None for name, some in found.items()}


def _format_mean(mean: float | None) -> str:
  return "undefined" if mean is None else f"{mean:.3f}"
