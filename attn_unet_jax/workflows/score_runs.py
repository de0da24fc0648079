"""Scores runs as `evaluate` is asked: on their own cases, their mean, or on another data set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.workflows.evaluate_run import (
  WantedMaps,
  accept_too,
  evaluate_other,
  evaluate_run,
  leave_unprocessed,
  score_by_rules,
)
from attn_unet_jax.workflows.fold_runs import expand_fold_runs, list_fold_runs
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.measure_attention import open_attention
from attn_unet_jax.workflows.mirror_run import mirror_run, scale_run
from attn_unet_jax.workflows.model_card import write_model_card
from attn_unet_jax.workflows.open_ensemble import open_ensemble
from attn_unet_jax.workflows.options import ScoreOptions
from attn_unet_jax.workflows.other_dataset import open_other_for_runs
from attn_unet_jax.workflows.pool_scores import check_pooling, pool_scores, remove_pooled
from attn_unet_jax.workflows.shared_fold import open_shared_fold


def score_own_cases(workdir: Path, part: str, options: ScoreOptions) -> None:
  """Scores a run on a part of its fold, into its own folder; of all folds, each by its own fold.

  Raises:
    UserError: there is no such run, or its folds cannot be pooled.
  """
  is_pooled = bool(list_fold_runs(workdir))
  if is_pooled:
    # Now, since scoring all folds takes long.
    check_pooling(workdir, part)
  for run in expand_fold_runs([workdir]):
    wanted = _want_maps(run, options)
    trained = _open_runs([run], options)
    # The list that the run wrote: what the config names may have changed since.
    fold = open_fold(trained.config.data, run / "folds.json")
    if is_pooled:
      # Until all folds are scored there is no mean of theirs.
      remove_pooled(workdir, part)
    evaluate_run(trained, fold, run, part, wanted)
    if part == "test":
      # The card has the scores of the test cases, which are new.
      write_model_card(run)
  if is_pooled:
    pool_scores(workdir, part)
    if part == "test":
      write_model_card(workdir)


def score_mean(workdirs: Sequence[Path], part: str, output: Path, options: ScoreOptions) -> None:
  """Scores the mean of several runs on a part of the fold that all of them have.

  Raises:
    UserError: there is no such run, or the runs do not fit together.
  """
  trained = _open_runs(workdirs, options)
  fold = open_shared_fold(workdirs, trained.config, part)
  evaluate_run(trained, fold, output, part, _want_maps(workdirs[0], options))


def score_other_set(
  workdirs: Sequence[Path],
  changes: Mapping[str, Any],
  part: str | None,
  output: Path,
  options: ScoreOptions,
) -> None:
  """Scores a run, or the mean of several, on another data set.

  Args:
    workdirs: the folders of the runs.
    changes: keys of `config.data` that name the set.
    part: the part of its folds; None: all its cases.
    output: the folder for `evaluation/` and `predictions/`.
    options: how it is scored.

  Raises:
    UserError: there is no such run or set, or they do not fit together.
  """
  wanted = _want_maps(workdirs[0], options)
  trained = _open_runs(workdirs, options)
  other = open_other_for_runs(workdirs, trained.config, changes, part)
  evaluate_other(trained, other, output, wanted)


def _open_runs(workdirs: Sequence[Path], options: ScoreOptions) -> LoadedRun:
  """Opens runs with what the options say of their answers and scores."""
  # Also of one: of a run of all folds it is their mean.
  trained = accept_too(open_ensemble(workdirs), options.accept)
  if not options.postprocess:
    trained = leave_unprocessed(trained)
  trained = scale_run(mirror_run(trained, options.mirrors), options.scales)
  return score_by_rules(trained, options.rules) if options.rules else trained


def _want_maps(workdir: Path, options: ScoreOptions) -> WantedMaps:
  """Returns which maps of a run are asked for."""
  return WantedMaps(open_attention(workdir) if options.attention else None, options.uncertainty)
