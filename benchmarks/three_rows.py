"""The paper's three rows: before fine-tuning, after it, and from scratch (Oktay et al. 2018).

  python -m tfds_pancreas.build --dataset=phantom_ct/demo --data_dir=data
  python -m benchmarks.three_rows --data_dir=data --workdir=runs/three_rows

A source run learns several organs from one set. On the few training cases of the target it is
scored as it is (before), trained on for the pancreas alone (after), and compared with a run that
starts afresh with the same budget (scratch). Only the project's commands are called, so what was
interrupted goes on. Where both sets are the same, their training cases are divided; nothing but the
number of cases and classes then separates source and target, and fine-tuning has little to bridge.
Writes a section of docs/reference/results.md.
"""

import json
import sys
from pathlib import Path
from typing import Any

from absl import flags

from attn_unet_jax.runtime.files import write_text
from attn_unet_jax.runtime.process import run_command
from benchmarks import runs
from benchmarks.page import write_section
from benchmarks.result import keep, machine
from benchmarks.tables import METRICS, three_rows_table
from tfds_pancreas.records import open_records

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the three runs.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Where the records are.")
_SOURCE = flags.DEFINE_string("source", "phantom_ct/demo", "Records to learn from first.")
_TARGET = flags.DEFINE_string("target", "phantom_ct/demo", "Records to learn and to score on.")
_LABELS = flags.DEFINE_string(
  "labels", "spleen,pancreas,kidney=kidney_left+kidney_right", "Classes of the source run."
)
_CASES = flags.DEFINE_integer("target_cases", 6, "Training cases of the target.")
_SOURCE_EPOCHS = flags.DEFINE_integer("source_epochs", 8, "Epochs of the source run, of 40 steps.")
_EPOCHS = flags.DEFINE_integer("target_epochs", 5, "Epochs of the other two, of 40 steps.")
_RATE = flags.DEFINE_float("fine_tuning_rate", 5e-4, "Learning rate of the run that goes on.")
_CHANGES = flags.DEFINE_multi_string("change", [], "A key of all runs: data.spacing_mm=4.5, ...")
_PAGE = flags.DEFINE_string("page", "docs/reference/results.md", "Page to write the table into.")
_OUTPUT = flags.DEFINE_string("output", "benchmarks/results/three_rows.json", "JSON to write.")


def main() -> None:
  """Trains, scores, prints and writes."""
  workdir, on = Path(_WORKDIR.value or ""), machine()
  workdir.mkdir(parents=True, exist_ok=True)
  folds = _write_folds(workdir)
  source, after, scratch = (workdir / name for name in ("source", "after", "scratch"))
  target = _data(_TARGET.value, folds["target"])
  epochs = f"--config.train.epochs={_EPOCHS.value}"
  _train(
    source,
    *_data(_SOURCE.value, folds["source"]),
    f"--config.data.labels={_LABELS.value}",
    f"--config.train.epochs={_SOURCE_EPOCHS.value}",
  )
  start = (f"--config.init.workdir={source}", f"--config.optimizer.learning_rate={_RATE.value}")
  _train(after, *target, epochs, *start)
  _train(scratch, *target, epochs)
  rows = {
    "before": _row(_score_on_target(source, target)),
    "after": _row(after / "evaluation"),
    "scratch": _row(scratch / "evaluation"),
  }
  result = {"source": _SOURCE.value, "target": _TARGET.value, "arguments": sys.argv[1:], **rows}
  keep({"machine": on, **result}, _OUTPUT.value)
  text = three_rows_table(rows)
  print(text)
  write_section(Path(_PAGE.value), "three_rows", text)


def _write_folds(workdir: Path) -> dict[str, Path]:
  """One fold each for source and target; of a set that is both, the training cases are divided."""
  parts = {
    role: {part: list(records.case_ids) for part, records in opened.splits.items()}
    for role, opened in (
      ("source", open_records(_SOURCE.value, _DATA_DIR.value)),
      ("target", open_records(_TARGET.value, _DATA_DIR.value)),
    )
  }
  parts["target"]["train"] = parts["target"]["train"][-_CASES.value :]
  if _SOURCE.value == _TARGET.value:
    parts["source"]["train"] = parts["source"]["train"][: -_CASES.value]
  files = {}
  for role, part in parts.items():
    fold = {"training": part["train"], "validation": part["validation"], "test": part["test"]}
    files[role] = workdir / f"{role}_fold.json"
    write_text(files[role], json.dumps({"name": role, "folds": [fold]}) + "\n")
  return files


def _data(dataset: str, folds: Path) -> tuple[str, ...]:
  return (
    f"--config.data.dataset={dataset}",
    f"--config.data.dir={_DATA_DIR.value}",
    f"--config.data.folds={folds}",
  )


def _train(workdir: Path, *changes: str) -> None:
  """Dice and cross-entropy over all classes, as the source run has several."""
  common = ("--config.train.steps_per_epoch=40", "--config.loss.bce=0.0", "--config.loss.ce=1.0")
  asked = (f"--config.{change}" for change in _CHANGES.value)
  runs.train("pancreas.py:phantom", workdir, *common, *changes, *asked)


def _score_on_target(source: Path, target: tuple[str, ...]) -> Path:
  """Where the source run's scores on the target's test cases lie."""
  if _SOURCE.value == _TARGET.value:  # its own test cases
    return source / "evaluation"
  labels = f"--config.data.labels={_LABELS.value}"
  runs.command("evaluate", f"--workdir={source}", *target, labels, "--part=test")
  return source / "evaluation" / _TARGET.value.replace("/", "_") / "test"


def _row(folder: Path) -> dict[str, Any]:
  """The pancreas's scores, their number of cases, and what trained the network."""
  summary = json.loads((folder / "summary.json").read_text())
  scores = {name: summary["classes"]["pancreas"][name] for name in METRICS}
  return {"cases": summary["cases"], "checkpoint_step": summary["checkpoint_step"], **scores}


if __name__ == "__main__":
  run_command(main)
