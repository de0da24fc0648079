"""Prints the table over runs: what differs in their configs, scores, paired tests over cases.

  python -m attn_unet_jax.compare --workdirs=runs/a,runs/b,runs/c [--output=FILE.md]

Every run is tested against the first, on the cases that both scored; cases of one alone are said,
never mixed in. A folder that `evaluate --output` wrote can stand for a run of another program.
--output=FILE.csv has the same figures in full precision, --output=FILE.tex is a table for a paper,
and --output=FILE.html a page with each case by two runs and pictures of those that differ most.
Of three runs or more it is also told how stable their ranks are.
"""

from pathlib import Path

from absl import flags

from attn_unet_jax.cases.folds import PARTS
from attn_unet_jax.runtime import process

_WORKDIRS = flags.DEFINE_list(
  "workdirs", None, "Runs, the one to compare with first.", required=True
)
_METRICS = flags.DEFINE_list(
  "metrics", ["dsc", "precision", "recall"], "Columns of cases.csv; the first is tested."
)
_PART = flags.DEFINE_enum("part", "test", PARTS, "Which cases' scores.")
_OUTPUT = flags.DEFINE_string("output", None, "Also write FILE.md, .csv, .tex or .html.")
_TITLE = flags.DEFINE_string("title", "", "Headline of FILE.md, caption of FILE.tex.")
_NOTE = flags.DEFINE_string("note", "", "A paragraph below it: what the runs are.")


def main() -> None:
  """Compares what the flags name."""
  from attn_unet_jax.workflows.compare_runs import compare_runs  # loads SciPy

  output = Path(_OUTPUT.value) if _OUTPUT.value else None
  # Flags with a default have values; `or` says so to the type checker.
  text = (_TITLE.value or "", _NOTE.value or "")
  compare_runs(_WORKDIRS.value or (), _PART.value, _METRICS.value or (), output, *text)


def run() -> None:
  """Starts the command."""
  process.run_command(main)


if __name__ == "__main__":
  run()
