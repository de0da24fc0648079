"""Scores segmentations on the native grid: DSC, precision, recall, ASSD per case and class.

  python -m attn_unet_jax.evaluate --workdir=runs/a
  python -m attn_unet_jax.evaluate --workdir=runs/a --config.data.dataset=decathlon_pancreas/native
  python -m attn_unet_jax.evaluate --prediction=DIR --reference=DIR --output=DIR

The first segments the run's test cases again with its best checkpoint and writes evaluation/ and
predictions/ in the run; --part chooses the validation or the training cases instead. The second
does so with every case of another data set (or --config.data.folder=DIR), or with a --part of its
folds: the run's classes are found there by name, and the files go into evaluation/NAME and
predictions/NAME. The third compares folders of NIfTI masks, file by file of the same name.
"""

from pathlib import Path
from typing import cast

from absl import flags

from attn_unet_jax.cases.folds import PARTS
from attn_unet_jax.evaluation.options import EMPTY_RULES, EmptyRule
from attn_unet_jax.runtime import process, xla
from attn_unet_jax.runtime.acceptance import ACCEPT_HELP, parse_acceptance
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import check_writable

_WORKDIR = flags.DEFINE_string("workdir", None, "A run: its cases are segmented and scored.")
_PART = flags.DEFINE_enum(
  "part", None, PARTS, "Which cases of the fold: of the run 'test', of another set all."
)
_PREDICTION = flags.DEFINE_string("prediction", None, "Folder of predicted masks (NIfTI).")
_REFERENCE = flags.DEFINE_string("reference", None, "Folder of reference masks, the same names.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for cases.csv and summary.json.")
_LABELS = flags.DEFINE_string(
  "labels", None, "CLASS=VALUE,... of the masks in folders; pancreas=1."
)
_ACCEPT = flags.DEFINE_string("accept", "", ACCEPT_HELP)
_EMPTY_MASKS = flags.DEFINE_enum(
  "empty_masks",
  None,
  EMPTY_RULES,
  "Which cases have a DSC: whose reference has the class (reference), or whose prediction has it "
  "too (either), or all, 1 where neither has it (one). Default: reference; of a run, its own.",
)
# The only keys of the config that a run may change afterwards: those that name another data set.
_OTHER_SET = {
  "dataset": flags.DEFINE_string("config.data.dataset", None, "Another data set, NAME/CONFIG."),
  "dir": flags.DEFINE_string("config.data.dir", None, "Where it lies; default: as the run's own."),
  "folder": flags.DEFINE_string("config.data.folder", None, "Or: a folder with images and labels."),
  "labels": flags.DEFINE_string("config.data.labels", None, "The run's classes in its labels."),
  "boxes": flags.DEFINE_string("config.data.boxes", None, "Boxes of its cases, to look in."),
  "folds": flags.DEFINE_string("config.data.folds", None, "A list of its folds, for --part."),
  "fold": flags.DEFINE_integer("config.data.fold", None, "Which fold of that list."),
}


def main() -> None:
  """Scores what the flags name."""
  other = {key: flag.value for key, flag in _OTHER_SET.items() if flag.value is not None}
  if _WORKDIR.value and not (_PREDICTION.value or _REFERENCE.value or _OUTPUT.value):
    if _LABELS.value is not None:
      raise UserError(
        f"--labels={_LABELS.value}: is for --prediction and --reference; a run knows its own, and "
        "--config.data.labels says those of another set"
      )
    _score_run(Path(_WORKDIR.value), other)
  elif (
    _PREDICTION.value
    and _REFERENCE.value
    and _OUTPUT.value
    and not (_WORKDIR.value or _PART.value or other)
  ):
    from attn_unet_jax.evaluation.scoring import score_folders, write_scores  # loads JAX

    check_writable(Path(_OUTPUT.value))
    labels = "pancreas=1" if _LABELS.value is None else _LABELS.value
    empty = _read_rule() or "reference"
    rows = score_folders(Path(_PREDICTION.value), Path(_REFERENCE.value), labels, empty)
    write_scores(rows, Path(_OUTPUT.value), empty=empty)
  else:
    raise UserError("give --workdir=RUN, or --prediction=DIR, --reference=DIR and --output=DIR")


def _read_rule() -> EmptyRule | None:
  return cast(EmptyRule | None, _EMPTY_MASKS.value)  # the flag allows no other text


def _score_run(workdir: Path, other: dict[str, str | int]) -> None:
  accept = parse_acceptance(_ACCEPT.value or "")
  from attn_unet_jax.cases.fold import open_fold  # these load JAX
  from attn_unet_jax.workflows.evaluate_run import (
    accept_too,
    evaluate_other,
    evaluate_run,
    score_by_rule,
  )
  from attn_unet_jax.workflows.open_run import open_run_or_stages
  from attn_unet_jax.workflows.other_dataset import list_seen_cases, open_other_dataset

  print_line(f"device: {xla.describe_devices()}")
  trained = accept_too(open_run_or_stages(workdir), accept)
  if empty := _read_rule():
    trained = score_by_rule(trained, empty)
  listing = workdir / "folds.json"
  if not other:
    evaluate_run(trained, open_fold(trained.config.data, listing), workdir, _PART.value or "test")
    return
  seen = list_seen_cases(trained.config, listing)
  evaluate_other(trained, open_other_dataset(trained.config, other, _PART.value, seen), workdir)


def run() -> None:
  """Starts the command."""
  process.run_command(main)


if __name__ == "__main__":
  run()
