"""Scores segmentations on the native grid: overlap, volumes, surface distances per case and class.

  python -m attn_unet_jax.evaluate --workdir=runs/a
  python -m attn_unet_jax.evaluate --workdir=runs/a --config.data.dataset=decathlon_pancreas/native
  python -m attn_unet_jax.evaluate --workdir=runs/a,runs/b --output=DIR
  python -m attn_unet_jax.evaluate --prediction=DIR --reference=DIR --output=DIR

The first segments the run's test cases again with its best checkpoint and writes evaluation/ and
predictions/ in the run; --part chooses the validation or the training cases instead. The second
does so with every case of another data set (or --config.data.folder=DIR), or with a --part of its
folds: the run's classes are found there by name, and the files go into evaluation/NAME and
predictions/NAME, in the run or in --output. The third scores the mean of several runs on the test
cases that all of them have. The fourth compares folders of NIfTI masks, file by file of the same
name. Of a run of all folds the first scores each case by the fold that did not see it, the second
by their mean. --workdir=builtin:NAME is a network that comes with the program.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from attn_unet_jax.cases.folds import PARTS
from attn_unet_jax.evaluation.options import EMPTY_RULES, EvaluationOptions
from attn_unet_jax.runs.builtin import announce_releases, find_runs, name_run
from attn_unet_jax.runs.release import is_release
from attn_unet_jax.runtime import process, xla
from attn_unet_jax.runtime.acceptance import ACCEPT_HELP, parse_acceptance
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import check_writable

_WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "A run: its cases are segmented and scored. Or several, a,b,c, whose answers are averaged.",
)
_PART = flags.DEFINE_enum(
  "part", None, PARTS, "Which cases of the fold: of the run 'test', of another set all."
)
_PREDICTION = flags.DEFINE_string("prediction", None, "Folder of predicted masks (NIfTI).")
_REFERENCE = flags.DEFINE_string("reference", None, "Folder of reference masks, the same names.")
_OUTPUT = flags.DEFINE_string(
  "output",
  None,
  "Folder for cases.csv and summary.json; of several runs, or of a run on another data set, for "
  "evaluation/ and predictions/, instead of the run's own.",
)
_LABELS = flags.DEFINE_string(
  "labels", None, "CLASS=VALUE,... of the masks in folders; pancreas=1."
)
_NO_POSTPROCESS = flags.DEFINE_bool(
  "no_postprocess", False, "Without the steps after the network that the run chose on validation."
)
_TTA = flags.DEFINE_string(
  "tta",
  "",
  "Test-time augmentation: axes along which predictions of mirrored scans are averaged; x: left "
  "and right, y: front and back, z: head and feet. Each doubles the time.",
)
_TTA_SCALES = flags.DEFINE_list(
  "tta_scales",
  [],
  "Test-time augmentation: scales of copies whose predictions are averaged too, such as 0.9,1.1. "
  "Each takes as long again.",
)
_ATTENTION = flags.DEFINE_bool(
  "attention",
  False,
  "Also run the network again for the coefficients of its attention gates, in the organ, within "
  "10 mm of it and elsewhere: attention.csv.",
)
_SAVE_UNCERTAINTY = flags.DEFINE_bool(
  "save_uncertainty",
  False,
  "Also write the entropy of the probabilities, 0 to 1, to uncertainty/NAME.nii.gz in the run.",
)
_ACCEPT = flags.DEFINE_string("accept", "", ACCEPT_HELP)
_EMPTY_MASKS = flags.DEFINE_enum(
  "empty_masks",
  None,
  EMPTY_RULES,
  "Which cases have a DSC: whose reference has the class (reference), or whose prediction has it "
  "too (either), or all, 1 where neither has it (one). Default: reference; of a run, its own.",
)
_NSD_MM = flags.DEFINE_list(
  "nsd_mm", None, "Tolerances of the surface dice, mm. Default: 2,3; of a run, its own."
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
  # Fold 0 is false, but given.
  other = {key: flag.value for key, flag in _OTHER_SET.items() if flag.value is not None}
  if _WORKDIR.value and not (_PREDICTION.value or _REFERENCE.value):
    if _LABELS.value is not None:
      raise UserError(
        f"--labels={_LABELS.value}: is for --prediction and --reference; a run knows its own, and "
        "--config.data.labels says those of another set"
      )
    _score_runs(find_runs(_WORKDIR.value), other)
  elif (
    _PREDICTION.value
    and _REFERENCE.value
    and _OUTPUT.value
    and not (_WORKDIR.value or _PART.value or other)
  ):
    of_runs = (_TTA, _TTA_SCALES, _NO_POSTPROCESS, _ATTENTION, _SAVE_UNCERTAINTY)
    if given := [flag.name for flag in of_runs if flag.value]:
      raise UserError(f"--{given[0]}: is for --workdir; masks in folders are scored as they are")
    options = EvaluationOptions(**_read_rules())
    from attn_unet_jax.evaluation.scoring import score_folders, write_scores  # loads JAX

    check_writable(Path(_OUTPUT.value))
    # Not the flag's own default: with a run it has to be known whether it was given.
    labels = "pancreas=1" if _LABELS.value is None else _LABELS.value
    rows = score_folders(Path(_PREDICTION.value), Path(_REFERENCE.value), labels, options)
    write_scores(rows, Path(_OUTPUT.value), empty=options.empty_masks)
  else:
    raise UserError("give --workdir=RUN, or --prediction=DIR, --reference=DIR and --output=DIR")


def _read_rules() -> dict[str, Any]:
  """Reads the options of scoring that the flags give."""
  # Only what was given: a run has rules of its own for the rest.
  rules: dict[str, Any] = {}
  if _EMPTY_MASKS.value:
    rules["empty_masks"] = _EMPTY_MASKS.value
  if _NSD_MM.value is not None:
    rules["nsd_mm"] = tuple(map(_parse_tolerance, _NSD_MM.value))
  return rules


def _parse_tolerance(text: str) -> float:
  try:
    value = float(text)
  except ValueError:
    # No distance, and refused with the others below.
    value = -1
  # NaN and infinity are no distances either.
  if not 0 <= value < math.inf:
    raise UserError(f"--nsd_mm={text}: must be distances in mm of at least 0, like 2,3")
  return value


def _score_runs(workdirs: Sequence[Path], other: dict[str, str | int]) -> None:
  accept = parse_acceptance(_ACCEPT.value or "")
  rules = _read_rules()
  # Before JAX is loaded, as all that flags alone can get wrong.
  _check_output(workdirs, other)
  from attn_unet_jax.inference.mirrors import parse_mirrors  # these load JAX
  from attn_unet_jax.inference.scales import parse_scales
  from attn_unet_jax.workflows.options import ScoreOptions
  from attn_unet_jax.workflows.score_runs import score_mean, score_other_set, score_own_cases

  options = ScoreOptions(
    accept=accept,
    rules=rules,
    postprocess=not _NO_POSTPROCESS.value,
    mirrors=parse_mirrors(_TTA.value or ""),
    scales=parse_scales(_TTA_SCALES.value or []),
    attention=bool(_ATTENTION.value),
    uncertainty=bool(_SAVE_UNCERTAINTY.value),
  )
  announce_releases(workdirs)
  print_line(f"device: {xla.describe_devices()}")
  output = Path(_OUTPUT.value) if _OUTPUT.value else workdirs[0]
  if other:
    score_other_set(workdirs, other, _PART.value, output, options)
  elif len(workdirs) > 1:
    score_mean(workdirs, _PART.value or "test", output, options)
  else:
    score_own_cases(workdirs[0], _PART.value or "test", options)


def _check_output(workdirs: Sequence[Path], other: dict[str, str | int]) -> None:
  """Refuses scores that would lie where nobody looks for them, or in a release."""
  several = len(workdirs) > 1
  if several and not _OUTPUT.value:
    raise UserError("--output is missing: of several runs, the folder for the scores of their mean")
  if _OUTPUT.value:
    _check_taken(Path(_OUTPUT.value), is_mean=several and not other)
  if several and _ATTENTION.value:
    raise UserError("--attention: is for one run; each of several has gates of its own")
  if _OUTPUT.value and not (other or several):
    raise UserError(
      f"--output={_OUTPUT.value}: is for several runs or another data set, --config.data.dataset "
      "or --config.data.folder; the scores of a run's own cases lie in the run"
    )
  for workdir in workdirs:
    if not is_release(workdir) or (other and _OUTPUT.value):
      continue
    raise UserError(
      f"--workdir={name_run(workdir)}: a release has no cases of its own, and nothing is written "
      "into it; name a data set by --config.data.dataset or --config.data.folder, and "
      "--output=FOLDER"
    )


def _check_taken(output: Path, *, is_mean: bool) -> None:
  """Refuses a release, and a run where the scores of a mean would replace its own."""
  if is_release(output) or (is_mean and (output / "config.json").exists()):
    raise UserError(
      f"--output={output}: a run or a release, whose own scores lie there; name another folder"
    )


def run() -> None:
  """Starts the command."""
  process.run_command(main)


if __name__ == "__main__":
  run()
