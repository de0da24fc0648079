"""Scores a run on the cases of its own folds, or on another data set."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attn_unet_jax.cases.fold import DataFold
from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.evaluation.quality_scores import (
  QUALITY,
  rank_estimates,
  write_estimates,
)
from attn_unet_jax.evaluation.scoring import SUMMARY, TABLE, score_cases, write_scores
from attn_unet_jax.inference.mirrors import AXES
from attn_unet_jax.inference.postprocess import UNCHANGED
from attn_unet_jax.inference.segment import ScanProbabilities
from attn_unet_jax.runtime.acceptance import Acceptance
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import check_writable, read_json_object
from attn_unet_jax.workflows.answer_memory import MemoryGuard
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.measure_attention import (
  ATTENTION,
  MeasureAttention,
  write_attention,
)
from attn_unet_jax.workflows.other_dataset import OtherDataset

UNCERTAINTY = "uncertainty"  # the folder of the maps


@dataclasses.dataclass(frozen=True)
class WantedMaps:
  """What is written beside scores and masks.

  Attributes:
    measure: measures where the gates look, for `attention.csv`; None: nobody asks.
    uncertainty: whether the entropy of each prediction is written to `uncertainty/`.
  """

  measure: MeasureAttention | None = None
  uncertainty: bool = False


_NO_MAPS = WantedMaps()


def accept_too(trained: LoadedRun, accept: Acceptance) -> LoadedRun:
  """Returns a run that accepts more doubts about scans than it was trained with."""
  # A run that learnt from doubtful scans accepts the same doubts about those that it is tested on.
  names = ",".join(sorted(accept | trained.config.data.acceptance))
  config = replace_keys(trained.config, {"data.accept": names})
  return dataclasses.replace(trained, config=config)


def score_by_rules(trained: LoadedRun, rules: Mapping[str, Any]) -> LoadedRun:
  """Returns the run with other options of scoring, by their names."""
  changes = {f"evaluation.{name}": value for name, value in rules.items()}
  return dataclasses.replace(trained, config=replace_keys(trained.config, changes))


def leave_unprocessed(trained: LoadedRun) -> LoadedRun:
  """Returns the run without the steps after the network that were chosen on validation."""
  return dataclasses.replace(trained, postprocessing=UNCHANGED, unprocessed=True)


def evaluate_run(
  trained: LoadedRun,
  fold: DataFold,
  workdir: Path,
  part: str = "test",
  wanted: WantedMaps = _NO_MAPS,
) -> None:
  """Scores the run on a part of its fold; writes `evaluation/` and `predictions/`.

  Earlier scores are removed before the first mask is written, so that a stop leaves none rather
  than those of other masks.

  Args:
    trained: the run.
    fold: its data.
    workdir: its folder.
    part: training, validation or test.
    wanted: what is written beside scores and masks.
  """
  # Scores of the test part are a run's main result and lie in evaluation/ itself.
  beside = "" if part == "test" else part
  _score_and_write(trained, fold, part, workdir, beside, {"part": part}, wanted)


def evaluate_other(
  trained: LoadedRun, other: OtherDataset, workdir: Path, wanted: WantedMaps = _NO_MAPS
) -> None:
  """Scores the run on another data set; writes `evaluation/NAME` and `predictions/NAME`.

  Arguments as of `evaluate_run`.

  Raises:
    UserError: the run has scores of another data set of that name, or they are damaged.
  """
  summary = workdir / "evaluation" / other.name / "summary.json"
  # Two sets can have the same name; the scores of the first must not be overwritten silently.
  held = read_json_object(summary, "remove it to score the set again").get("data")
  # None: no scores lie there yet.
  if held not in (None, other.about["data"]):
    raise UserError(
      f"{summary.parent}: contains the scores of {held}, not of {other.about['data']}; move it away"
    )
  print_line(other.describe())
  seen = other.about["seen_in_training"]
  if seen is None:
    print_line("without folds.json it is unknown whether the network was trained on any of them")
  elif seen:
    print_line(
      f"{len(seen)} of them have the id of a training or validation case of the run, such as "
      f"{seen[0]}: if these are the same scans, their scores are not those of unseen cases"
    )
  _score_and_write(trained, other.fold, "test", workdir, other.name, other.about, wanted)


def _score_and_write(
  trained: LoadedRun,
  fold: DataFold,
  part: str,
  workdir: Path,
  beside: str,
  about: Mapping[str, Any],
  wanted: WantedMaps,
) -> None:
  folder, predictions = workdir / "evaluation" / beside, workdir / "predictions" / beside
  doubts = workdir / UNCERTAINTY / beside
  for written in (folder, predictions, *([doubts] if wanted.uncertainty else [])):
    check_writable(written)
  ids = getattr(fold.split, part)
  # Those of an earlier evaluation are not of these masks.
  stale = [folder / name for name in (TABLE, SUMMARY, ATTENTION, QUALITY)]
  stale += [doubts / f"{case_id}.nii.gz" for case_id in ids]
  estimates: dict[str, dict[str, float]] = {}

  def observe(case_id: str, found: ScanProbabilities) -> None:
    """Removes what is stale, and keeps the expected DSC of a case."""
    # Not before the first case is predicted: what fails until then costs no scores.
    while stale:
      stale.pop().unlink(missing_ok=True)
    if trained.quality:
      quality = trained.estimate_quality(found)
      estimates[case_id] = {name: one.expected_dsc for name, one in quality.items()}
      trained.forget_agreement()

  trained.forget_agreement()
  # With surface distances, which validation leaves out because they are slow.
  rows = score_cases(
    fold,
    ids,
    MemoryGuard(trained),
    trained.config,
    trained.locate,
    predictions,
    surfaces=True,
    postprocessing=trained.postprocessing,
    doubts=doubts if wanted.uncertainty else None,
    observe=observe,
  )
  # A copy: the caller's own must not grow.
  about = {**about, "checkpoint_step": trained.step}
  if trained.members:
    # Which networks were averaged, as a release of their mean asks.
    about["digest"] = trained.digest
  if trained.mirrors:
    about["tta"] = "".join(AXES[axis] for axis in trained.mirrors)
  if trained.scales:
    about["tta_scales"] = list(trained.scales)
  if trained.unprocessed:
    about["no_postprocess"] = True
  if trained.postprocessing != UNCHANGED:
    about["postprocessing"] = dataclasses.asdict(trained.postprocessing)
    print_line(f"after the network: {trained.postprocessing.describe()}")
  ranked = rank_estimates(estimates, rows)
  if ranked:
    about["quality"] = {name: one._asdict() for name, one in ranked.items()}
  write_scores(rows, folder, about, trained.config.evaluation.empty_masks)
  write_estimates(folder, estimates, rows, ranked)
  print_line(f"segmentations: {predictions}/*.nii.gz")
  if wanted.measure:
    # Last, since it passes over every scan again: a stop leaves masks and scores complete.
    write_attention(wanted.measure, fold, ids, folder)
