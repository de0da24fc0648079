"""Scores segmentations on the native grid: DSC, precision and recall per case and class.

  python -m attn_unet_jax.evaluate --workdir=runs/a
  python -m attn_unet_jax.evaluate --prediction=DIR --reference=DIR --output=DIR

The first segments the run's test cases again with its best checkpoint and writes evaluation/ and
predictions/ in the run; --part chooses the validation or the training cases instead. The second
compares folders of NIfTI masks, file by file of the same name.
"""

from pathlib import Path

from absl import flags

from attn_unet_jax import command
from attn_unet_jax.data.fold import open_fold
from attn_unet_jax.data.folds import PARTS
from attn_unet_jax.errors import UserError
from attn_unet_jax.inference.scoring import evaluate_run, score_folders, write_scores
from attn_unet_jax.inference.trained import open_run

_WORKDIR = flags.DEFINE_string("workdir", None, "A run: its cases are segmented and scored.")
_PART = flags.DEFINE_enum("part", "test", PARTS, "Which cases of the fold of the run.")
_PREDICTION = flags.DEFINE_string("prediction", None, "Folder of predicted masks (NIfTI).")
_REFERENCE = flags.DEFINE_string("reference", None, "Folder of reference masks, the same names.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder for cases.csv and summary.json.")
_LABELS = flags.DEFINE_string("labels", "pancreas=1", "CLASS=VALUE,... of the masks in folders.")


def main() -> None:
  """The command."""
  if _WORKDIR.value and not (_PREDICTION.value or _REFERENCE.value or _OUTPUT.value):
    workdir = Path(_WORKDIR.value)
    trained = open_run(workdir)
    fold = open_fold(trained.config, workdir / "folds.json")
    evaluate_run(trained, fold, workdir, _PART.value)
  elif _PREDICTION.value and _REFERENCE.value and _OUTPUT.value and not _WORKDIR.value:
    rows = score_folders(Path(_PREDICTION.value), Path(_REFERENCE.value), _LABELS.value)
    write_scores(rows, Path(_OUTPUT.value))
  else:
    raise UserError("give --workdir=RUN, or --prediction=DIR, --reference=DIR and --output=DIR")


if __name__ == "__main__":
  command.run(main)
