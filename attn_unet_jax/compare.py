"""Prints the table over runs: what differs in their configs, scores, paired tests over cases.

  python -m attn_unet_jax.compare --workdirs=runs/a,runs/b,runs/c [--output=FILE.md]

Every run is tested against the first, on the cases that both scored; cases of one alone are said,
never mixed in. A folder that `evaluate --output` wrote can stand for a run of another program.
--output=FILE.csv has the same figures in full precision.
"""

import sys
from pathlib import Path
from typing import Any

from absl import flags

from attn_unet_jax.cases.folds import PARTS
from attn_unet_jax.config.schema import flatten
from attn_unet_jax.config.stored import load_config
from attn_unet_jax.evaluation import comparison_text
from attn_unet_jax.evaluation.compared_runs import read_run
from attn_unet_jax.evaluation.comparison import compare
from attn_unet_jax.runtime import process
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import write_text

_WORKDIRS = flags.DEFINE_list("workdirs", None, "Runs, the one to compare with first.")
_METRICS = flags.DEFINE_list(
  "metrics", ["dsc", "precision", "recall"], "Columns of cases.csv; the first is tested."
)
_PART = flags.DEFINE_enum("part", "test", PARTS, "Which cases' scores.")
_OUTPUT = flags.DEFINE_string("output", None, "Also write FILE.md or FILE.csv.")
_TITLE = flags.DEFINE_string("title", "", "Headline of FILE.md.")
_NOTE = flags.DEFINE_string("note", "", "A paragraph below it: what the runs are.")
flags.mark_flag_as_required("workdirs")


def main() -> None:
  """The command."""
  names = [name.rstrip("/") for name in _WORKDIRS.value or ()]
  output = Path(_OUTPUT.value) if _OUTPUT.value else None
  if len({Path(name).resolve() for name in names}) < max(2, len(names)):
    raise UserError(f"--workdirs={','.join(names)}: name two runs or more, each once")
  if output and output.suffix not in (".md", ".csv"):
    raise UserError(f"--output={output}: must end in .md or .csv")
  runs = [read_run(Path(name), _read_values, _PART.value) for name in names]
  table = compare(runs, _METRICS.value)
  print_line(comparison_text.markdown(table))
  if output:
    page = comparison_text.document(table, runs, sys.argv[1:], _TITLE.value, _NOTE.value)
    _write(output, page if output.suffix == ".md" else comparison_text.comma_separated(table))
    print_line(f"the same: {output}")


def _read_values(path: Path) -> dict[str, Any]:
  return flatten(load_config(path))


def _write(path: Path, content: str) -> None:
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, content)
  except OSError as error:
    raise UserError(f"--output={path}: cannot be written ({error.strerror})") from None


if __name__ == "__main__":
  process.run_command(main)
