"""Writes the summary of a run: its facts, its scores with what they mean, published figures."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

# What a reader who does not know the field has to know, by the beginning of a score's name; of two
# that fit, the longer one.
_MEANINGS = {
  "dsc": "overlap of prediction and truth, twice what both share by the sum of both; 1 is perfect",
  "iou": "what both share by what either has; 1 is perfect",
  "precision": "how much of the prediction is right",
  "recall": "how much of the truth was found",
  "specificity": "how much of what is not the organ was left out",
  "volume_ml": "volume of the prediction, millilitres",
  "reference_volume_ml": "volume of the truth",
  "volume_error_ml": "prediction less truth",
  "volume_error_abs_ml": "the same without its sign",
  "assd_mm": "mean distance of the two surfaces, millimetres",
  "assd_voxels_mm": "the same between border voxels, as most papers have it",
  "hd_mm": "largest distance from one surface to the other",
  "hd95_mm": "the distance within which 95 % of each surface lies",
  "nsd": "share of both surfaces that lies as near to the other as its name says; 1 is perfect",
  "ece": "how far probabilities are from frequencies; 0 is perfect",
  "box_recall": "how much of the truth lies in the box that was searched",
  "box_volume_reduction": "how much of the scan the box leaves out",
}


def write_summary(
  facts: Sequence[tuple[str, str]],
  notes: Sequence[str],
  summary: Mapping[str, Any],
  published: Sequence[Sequence[str]] = (),
) -> Iterator[str]:
  """Yields the summary as HTML.

  Args:
    facts: names and values.
    notes: sentences about what is missing.
    summary: the content of `summary.json`; empty without scores.
    published: figures of papers on the same data: paper, method, DSC, cases.
  """
  yield from (f"<p><strong>{escape(note)}</strong></p>" for note in notes)
  yield '<dl class="facts">'
  yield from (
    f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts
  )
  yield "</dl>"
  classes = summary.get("classes", {})
  if not classes:
    yield '<p class="soft">There are no scores yet.</p>'
    return
  metrics = list(dict.fromkeys(name for one in classes.values() for name in one))
  yield "<h3>Mean over the cases \u00b1 standard deviation, 95 % interval of the mean, cases</h3>"
  rows = [[metric, *(_format_spread(one.get(metric)) for one in classes.values())]
          for metric in metrics]  # fmt: skip
  yield from write_table(["score", *classes], rows, kind="scores")
  yield from _write_published(published)
  yield from write_meanings(metrics)


def write_table(
  columns: Sequence[str], rows: Sequence[Sequence[str]], *, escaped: bool = False, kind: str = ""
) -> Iterator[str]:
  """Yields a table as HTML, whose first column heads the rows.

  Args:
    columns: their names.
    rows: the cells of each.
    escaped: whether the cells are HTML already.
    kind: the class of the table's element, for its style.
  """
  yield f'<div class="wide"><table class="{kind}"><thead><tr>'
  # By `scope` a screen reader tells which cells a head belongs to.
  yield "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
  yield "</tr></thead><tbody>"
  for row in rows:
    first, *rest = (cell if escaped else escape(cell) for cell in row)
    values = "".join(f"<td>{cell}</td>" for cell in rest)
    yield f'<tr><th scope="row">{first}</th>{values}</tr>'
  yield "</tbody></table></div>"


def write_meanings(metrics: Sequence[str]) -> Iterator[str]:
  """Yields what scores mean, for a reader who does not know the field."""
  yield '<details open><summary>What the scores mean</summary><dl class="meanings">'
  for metric in metrics:
    if meaning := find_meaning(metric):
      yield f"<div><dt>{escape(metric)}</dt><dd>{escape(meaning)}</dd></div>"
  yield "</dl></details>"


def find_meaning(metric: str) -> str:
  """Returns what a score is, in words; '' if it is not known here."""
  fitting = (name for name in _MEANINGS if metric.startswith(name))
  return _MEANINGS.get(max(fitting, key=len, default=""), "")


def _format_spread(found: Mapping[str, Any] | None) -> str:
  """Formats a score of `summary.json`: mean, standard deviation and number of cases."""
  # JSON has null for what is undefined.
  if not found or found.get("mean") is None:
    return "undefined"
  spread = "" if found.get("sd") is None else f" \u00b1 {found['sd']:.3f}"
  ends = found.get("ci95_low"), found.get("ci95_high")
  interval = "" if None in ends else f", {ends[0]:.3f} to {ends[1]:.3f}"
  count = found.get("n", 0)
  return f"{found['mean']:.3f}{spread}{interval} (n {count} of {count + found.get('undefined', 0)})"


def _write_published(published: Sequence[Sequence[str]]) -> Iterator[str]:
  if not published:
    return
  yield "<h3>Published DSC of the pancreas on the same data, by other folds or methods</h3>"
  yield from write_table(["paper", "method", "DSC", "cases"], published, kind="words")
