"""Renders a comparison as Markdown or CSV."""

import csv
import io
import math
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from attn_unet_jax.evaluation.compared_runs import ScoredRun
from attn_unet_jax.evaluation.comparison import ComparisonRow, ComparisonTable
from attn_unet_jax.evaluation.summary import ScoreSummary


def render_markdown(table: ComparisonTable) -> str:
  """Renders the table, an explanation of its tests, and its notes."""
  # A bar would end the cell.
  rows = [[cell.replace("|", "\\|") for cell in row] for row in render_cells(table, shown=True)]
  lines = [f"| {' | '.join(row)} |" for row in rows]
  lines.insert(1, f"|{' --- |' * len(rows[0])}")
  notes = (f"\nNote: {note}." for note in table.notes)
  return "\n".join([*lines, "", explain_table(table), *notes]) + "\n"


def explain_table(table: ComparisonTable) -> str:
  """Explains means, tests and ranks in a paragraph."""
  first, metric = table.rows[0].run, table.metrics[0]
  about = [
    "Mean ± sd over each run's own cases, with the 95 % bootstrap interval of the mean over cases, "
    "and how many of them have a score (n of N).",
    f"Δ {metric}: mean difference to {first} over the n cases "
    "that both scored, with two-sided p values of Wilcoxon's signed rank test (beside it adjusted "
    "by Holm's rule for the number of runs tested) and of the paired t test, on those cases. "
    "They tell whether two trained networks differ on such cases, not whether two configs do: "
    "another seed may move a run as far.",
  ]
  if table.ranks:
    stability = "; ".join(
      f"{name}, {found.cases} cases: {found.tau:.2f} ({found.tau_low:.2f} to {found.tau_high:.2f})"
      for name, found in table.ranks.items()
    )
    about.append(
      f"Rank: by the mean {metric} over the cases that all runs scored, and in brackets the share "
      "of bootstrap draws of these cases in which the run is first. Kendall's tau between the "
      f"ranks of a draw and these ranks, mean and 95 % of draws: {stability}."
    )
  return " ".join(about)


def render_document(
  table: ComparisonTable,
  runs: Sequence[ScoredRun],
  command: Sequence[str],
  title: str = "",
  note: str = "",
) -> str:
  """Renders a page: title, note, table, and the commands that made the runs and the page."""
  made = render_commands(runs, command)
  head = (f"# {title}\n\n" if title else "") + (f"{note}\n\n" if note else "")
  return f"{head}{render_markdown(table)}\nMade by\n\n```\n{made}\n```\n"


def render_csv(table: ComparisonTable) -> str:
  """Renders the rows for programs: full precision, mean and sd in columns of their own."""
  # By default the csv module ends lines with a carriage return too.
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerows(render_cells(table, shown=False))
  return text.getvalue()


def render_commands(runs: Sequence[ScoredRun], command: Sequence[str]) -> str:
  """Renders the commands that made the runs and the table, to be pasted into a shell."""
  commands = [_render_command("main", run.command) for run in runs if run.command]
  return "\n".join([*commands, _render_command("compare", command)])


def _render_command(module: str, flags: Sequence[str]) -> str:
  # A flag on each line: commands of many flags stay readable and can be pasted into a shell.
  return " \\\n  ".join([f"python -m attn_unet_jax.{module}", *map(shlex.quote, flags)])


def render_cells(
  table: ComparisonTable, *, shown: bool, with_config: bool = True
) -> Iterator[list[str]]:
  """Yields the head and the rows, for people if `shown`, otherwise for programs.

  Cells are plain text: what a format must escape is left to it.

  Args:
    table: the table.
    shown: whether people read it.
    with_config: whether the values in which the configs differ have columns.
  """
  keys = list(table.rows[0].config) if with_config else []
  # A column of classes says nothing to people if there is only one class.
  several = len({row.name for row in table.rows}) > 1 or not shown
  steps = any(row.step is not None for row in table.rows)
  metric = table.metrics[0]
  head = ["run", *keys, *(["class"] if several else []), *(["step"] if steps else [])]
  for name in table.metrics:
    of = ("sd", "ci95_low", "ci95_high", "n")
    head += [name] if shown else [name, *(f"{name}_{column}" for column in of)]
  if table.ranks:
    head += ["rank"] if shown else ["rank", "first_share"]
  delta = f"Δ {metric}" if shown else f"{metric}_difference"
  yield [*head, delta, *(["n"] if shown else ["n_pairs"]), "p Wilcoxon", "p Holm", "p t"]
  for row in table.rows:
    cells = [row.run, *(_render_value(row.config[key]) for key in keys)]
    cells += ([row.name] if several else []) + ([_render_value(row.step)] if steps else [])
    for name in table.metrics:
      cells += _render_summary(row.spread[name], row.cases, shown=shown)
    if table.ranks:
      cells += _render_rank(row, shown=shown)
    yield cells + _render_tests(row, shown=shown)


def render_differences(table: ComparisonTable) -> list[list[str]]:
  """Returns a row for each key of the config whose values differ: the key, and each run's value."""
  of_runs = {row.run: row.config for row in table.rows}  # the rows of a run have one config
  keys = next(iter(of_runs.values()))
  return [
    [key, *(_render_value(config[key]) or "-" for config in of_runs.values())] for key in keys
  ]


def _render_summary(found: ScoreSummary, cases: int, *, shown: bool) -> list[str]:
  if not shown:
    exact = (found.mean, found.sd, found.ci95_low, found.ci95_high)
    return [*map(_render_exact, exact), str(found.n)]
  of = f"({found.n} of {cases})"
  if not found.n:
    return [f"- {of}"]
  if found.n == 1:  # a single case has neither sd nor interval
    return [f"{found.mean:.3f} {of}"]
  interval = f"[{found.ci95_low:.3f}, {found.ci95_high:.3f}]"
  return [f"{found.mean:.3f} ± {found.sd:.3f} {interval} {of}"]


def _render_rank(row: ComparisonRow, *, shown: bool) -> list[str]:
  # Classes whose runs share too few cases have no ranks, while others have.
  if not shown:
    return ["" if row.rank is None else str(row.rank), _render_exact(row.first_share)]
  return ["-" if row.rank is None else f"{row.rank} ({row.first_share:.0%})"]


def _render_tests(row: ComparisonRow, *, shown: bool) -> list[str]:
  # The first run is not tested against itself.
  if row.tests is None:
    return ["-" if shown else ""] * 5
  n, difference, p_wilcoxon, p_t = row.tests
  if not shown:
    return [_render_exact(difference), str(n), *map(_render_exact, (p_wilcoxon, row.p_holm, p_t))]
  change = "-" if math.isnan(difference) else f"{difference:+.3f}"
  return [change, str(n), *map(_render_p, (p_wilcoxon, row.p_holm, p_t))]


def _render_p(value: float) -> str:
  if math.isnan(value):
    return "-"
  # Smaller p values depend on the distribution's far tail: their digits mean nothing.
  return "< 0.0001" if value < 1e-4 else f"{value:.3g}"


def _render_exact(value: float) -> str:
  # `repr` gives all digits that reading the number back needs.
  return "" if math.isnan(value) else repr(value)


def _render_value(value: Any) -> str:
  if value is None:
    return "-"
  return f"{value:g}" if isinstance(value, float) else str(value)
