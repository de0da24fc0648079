"""Compares runs in a table: their differences, scores, and paired tests against the first."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attn_unet_jax.config.schema import flatten
from attn_unet_jax.config.stored import load_config
from attn_unet_jax.evaluation import comparison_text
from attn_unet_jax.evaluation.compared_runs import ScoredRun, read_run
from attn_unet_jax.evaluation.comparison import ComparisonTable, compare_scores
from attn_unet_jax.evaluation.comparison_latex import render_latex
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import write_text

Render = Callable[[ComparisonTable, Sequence[ScoredRun], Sequence[str], str, str, str], str]


def _render_html(*shown: Any) -> str:
  # Imported here: it loads JAX, which the other formats do without.
  from attn_unet_jax.workflows.compare_page import render_comparison

  return render_comparison(*shown)


# The ending of a file names its format.
_FORMATS: dict[str, Render] = {
  ".md": lambda *shown: comparison_text.render_document(*shown[:5]),
  ".csv": lambda table, *_: comparison_text.render_csv(table),
  ".tex": lambda *shown: render_latex(*shown[:5]),
  ".html": _render_html,
}


def compare_runs(
  workdirs: Sequence[str],
  part: str,
  metrics: Sequence[str],
  output: Path | None,
  title: str,
  note: str,
) -> None:
  """Prints the table of runs and writes it to a file.

  Args:
    workdirs: the runs; the others are compared with the first.
    part: the part of the fold: training, validation or test.
    metrics: columns of `cases.csv`; the first is tested.
    output: FILE.md, FILE.csv, FILE.tex or FILE.html; None: nothing is written.
    title: the headline of FILE.md and FILE.html, the beginning of the caption in FILE.tex.
    note: a paragraph below it.

  Raises:
    UserError: there are too few runs, a run has no scores, or the output cannot be written.
  """
  names = [name.rstrip("/") for name in workdirs]
  # By resolved path: two names of one run would be compared with each other.
  if len({Path(name).resolve() for name in names}) < max(2, len(names)):
    raise UserError(f"--workdirs={','.join(names)}: name two runs or more, each once")
  # Now, since reading the scores of all runs would be in vain.
  if output and output.suffix not in _FORMATS:
    *others, last = _FORMATS
    raise UserError(f"--output={output}: must end in {', '.join(others)} or {last}")
  runs = [read_run(Path(name), _read_values, part) for name in names]
  table = compare_scores(runs, metrics)
  for line in comparison_text.render_markdown(table).splitlines():
    print_line(line)
  if output:
    # The document includes the command that made it.
    _write_page(output, _FORMATS[output.suffix](table, runs, sys.argv[1:], title, note, part))
    print_line(f"table: {output}")


def _read_values(path: Path) -> dict[str, Any]:
  return flatten(load_config(path))


def _write_page(path: Path, content: str) -> None:
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, content)
  except OSError as error:
    raise UserError(f"--output={path}: cannot be written ({error.strerror})") from None
