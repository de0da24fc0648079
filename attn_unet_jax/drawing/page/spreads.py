"""Chooses what the page shows of many scores: the diagrams, their dots, the lines of the table."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Rows = Sequence[Mapping[str, str]]

# A browser draws each dot, and a reader looks at few of many diagrams.
_MAX_DIAGRAMS, _MAX_DOTS = 48, 300
_MAX_LINES = 500
# Whether more is better; of other columns, such as volumes, neither end is the worse one.
_HIGHER_IS_BETTER = ("dsc", "iou", "precision", "recall", "specificity", "nsd", "box_recall")
_LOWER_IS_BETTER = ("assd", "hd", "volume_error_abs", "ece")


def find_worst(metric: str, values: Mapping[str, float]) -> str:
  """Returns the case with the worst value of a metric; '' if neither end is the worse one."""
  if metric.startswith(_HIGHER_IS_BETTER):
    return min(values, key=lambda case: values[case])
  if metric.startswith(_LOWER_IS_BETTER):
    return max(values, key=lambda case: values[case])
  return ""


def parse_number(text: str) -> float:
  """Returns the number in a cell; NaN where there is none."""
  try:
    return float(text)
  except ValueError:
    return math.nan


def choose_lines(scores: Rows) -> Rows:
  """Returns the lines of the table, the lowest DSC first; of many, those of the lowest."""

  # Those without a DSC last: NaN is neither less nor more than a number.
  def rank(row: Mapping[str, str]) -> tuple[bool, float]:
    """Returns what the rows are sorted by."""
    value = parse_number(row.get("dsc", ""))
    return math.isnan(value), value

  return sorted(scores, key=rank)[:_MAX_LINES]


def collect_spreads(scores: Rows) -> tuple[list[dict[str, Any]], int]:
  """Returns the distribution of each metric over the cases, class after class.

  Returns:
    what the script draws, the first metrics of all classes where there are many, and how many
    diagrams are left out.
  """
  names = list(dict.fromkeys(row["class"] for row in scores))
  metrics = [
    name for name in (scores[0] if scores else ()) if name not in ("case", "class", "fold")
  ]
  # Metric after metric, so that no class is left out before the last metrics are.
  found = {
    (name, metric): values
    for metric in metrics
    for name in names
    if (values := _read_values(scores, name, metric))
  }
  kept = list(found)[:_MAX_DIAGRAMS]
  kept.sort(key=lambda pair: names.index(pair[0]))  # which keeps the order of the metrics
  drawn = [_describe(*pair, found[pair], several=len(names) > 1) for pair in kept]
  return drawn, len(found) - len(kept)


def _read_values(scores: Rows, name: str, metric: str) -> dict[str, float]:
  values = {row["case"]: parse_number(row[metric]) for row in scores if row["class"] == name}
  return {case: value for case, value in values.items() if math.isfinite(value)}


def _describe(
  name: str, metric: str, values: Mapping[str, float], *, several: bool
) -> dict[str, Any]:
  worst, shown = find_worst(metric, values), _thin_out(values)
  title = f"{name}: {metric}" if several else metric
  part = f", {len(shown)} of {len(values)} cases" if len(shown) < len(values) else ""
  return {
    "title": title + part,
    "cases": [*shown.items()],
    "median": statistics.median(values.values()),
    "worst": worst,
    "worstValue": values.get(worst),
    # Shares are shown on their whole range, so that pages can be compared.
    "limits": [0, 1] if all(0 <= value <= 1 for value in values.values()) else None,
  }


def _thin_out(values: Mapping[str, float]) -> Mapping[str, float]:
  """Returns the values of so many cases as are drawn: both ends, and evenly by rank between."""
  if len(values) <= _MAX_DOTS:
    return values
  ranked = sorted(values, key=lambda case: values[case])
  step = (len(ranked) - 1) / (_MAX_DOTS - 1)
  return {case: values[case] for case in (ranked[round(n * step)] for n in range(_MAX_DOTS))}
