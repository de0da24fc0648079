"""Renders a comparison as a table in LaTeX."""

from collections.abc import Sequence

from attn_unet_jax.evaluation.compared_runs import ScoredRun
from attn_unet_jax.evaluation.comparison import ComparisonTable
from attn_unet_jax.evaluation.comparison_text import explain_table, render_cells, render_commands

_COMMANDS = {
  "\\": r"\textbackslash{}",
  "~": r"\textasciitilde{}",
  "^": r"\textasciicircum{}",
  **{character: f"\\{character}" for character in "&%$#_{}"},
  # Outside of mathematics TeX's oldest fonts have other characters in their places.
  "<": "$<$",
  ">": "$>$",
  "±": r"$\pm$",
  "Δ": r"$\Delta$",
  # An empty line would end the argument of the caption with an error.
  "\n": " ",
  "\r": " ",
}


def render_latex(
  table: ComparisonTable,
  runs: Sequence[ScoredRun],
  command: Sequence[str],
  title: str = "",
  note: str = "",
) -> str:
  r"""Renders a table to be input into a document that has `\usepackage{booktabs}`.

  The title, the note, the explanation and the notes of the table become its caption. The commands
  that made the runs and the table stand in comments above.
  """
  head, *rows = ([escape_latex(cell) for cell in row] for row in render_cells(table, shown=True))
  parts = [f"{title}." if title else "", note, explain_table(table)]
  caption = " ".join([*filter(None, parts), *(f"Note: {note}." for note in table.notes)])
  # A comment of TeX ends with its line.
  made = render_commands(runs, command).splitlines()
  lines = [
    "% Needs \\usepackage{booktabs}. Made by",
    *(f"%   {line}" for line in made),
    r"\begin{table}",
    f"\\caption{{{escape_latex(caption)}}}",
    f"\\begin{{tabular}}{{{'l' * len(head)}}}",
    r"\toprule",
    _join_cells(head),
    r"\midrule",
    *map(_join_cells, rows),
    r"\bottomrule",
    r"\end{tabular}",
    r"\end{table}",
  ]
  return "\n".join(lines) + "\n"


def escape_latex(text: str) -> str:
  """Returns a text as LaTeX prints it."""
  # Character by character: in whole texts the backslashes of one escape would meet the next.
  return "".join(_COMMANDS.get(character, character) for character in text)


def _join_cells(cells: Sequence[str]) -> str:
  return f"{' & '.join(cells)} \\\\"
