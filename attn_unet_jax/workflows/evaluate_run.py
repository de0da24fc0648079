"""Scores a run: the cases of its own folds, or another data set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attn_unet_jax.cases.fold import DataFold
from attn_unet_jax.evaluation.scoring import score_cases, write_scores
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import check_writable, read_json_object
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.other_dataset import OtherDataset


def evaluate_run(trained: LoadedRun, fold: DataFold, workdir: Path, part: str = "test") -> None:
  """Segments and scores a part of the fold; writes `evaluation/` and `predictions/`."""
  beside = "" if part == "test" else part  # the test part is what a run is about
  _score_and_write(trained, fold, part, workdir, beside, {"part": part})


def evaluate_other(trained: LoadedRun, other: OtherDataset, workdir: Path) -> None:
  """Segments and scores another data set; writes `evaluation/NAME` and `predictions/NAME`.

  Raises:
    UserError: the run holds the scores of another set of that name, or what it holds is damaged.
  """
  summary = workdir / "evaluation" / other.name / "summary.json"
  held = read_json_object(summary, "remove it to have the set scored again").get("data")
  if held not in (None, other.about["data"]):
    raise UserError(
      f"{summary.parent}: holds the scores of {held}, not of {other.about['data']}; move it away"
    )
  print_line(other.describe())
  seen = other.about["seen_in_training"]
  if seen is None:
    print_line(f"{workdir} has no folds.json: whether it was trained on any of them is not known")
  elif seen:
    print_line(
      f"{len(seen)} of them bear the id of a training or validation case of the run, such as "
      f"{seen[0]}: if these are the same scans, the scores are not those of unseen cases"
    )
  _score_and_write(trained, other.fold, "test", workdir, other.name, other.about)


def _score_and_write(
  trained: LoadedRun,
  fold: DataFold,
  part: str,
  workdir: Path,
  beside: str,
  about: Mapping[str, Any],
) -> None:
  folder, predictions = workdir / "evaluation" / beside, workdir / "predictions" / beside
  for written in (folder, predictions):  # lest new masks lie beside old scores
    check_writable(written)
  ids = getattr(fold.split, part)
  rows = score_cases(
    fold, ids, trained.system, trained.config, trained.locate, predictions, surfaces=True
  )
  write_scores(rows, folder, {**about, "checkpoint_step": trained.step})
  print_line(f"segmentations: {predictions}/*.nii.gz")
