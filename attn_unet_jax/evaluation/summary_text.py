"""Describes the scores of a class in lines of text."""

import math
from collections.abc import Mapping, Sequence

from attn_unet_jax.evaluation.summary import CaseScore, ClassCounts, ScoreSummary

_SHOWN = (
  "dsc",
  "precision",
  "recall",
  "volume_error_ml",
  "assd_mm",
  "assd_voxels_mm",
  "hd95_mm",
  "ece",
)
_NSD = "nsd_"
_HEAD = ("", "mean ± sd", "95 % interval", "median (quartiles)", "n")


def describe_class(
  name: str,
  summaries: Mapping[str, ScoreSummary],
  counts: ClassCounts,
  worst: Sequence[CaseScore],
) -> list[str]:
  """Describes the scores of one class: a line of its cases, and a table of its scores.

  Args:
    name: the class.
    summaries: by metric; the less common ones are left out.
    counts: its cases.
    worst: the cases that are named.
  """
  of = f"{counts.cases} case{'s'[: counts.cases > 1]}"
  line = f"{name}, {of}: {_describe_counts(counts)}"
  # Of one case the table below says it.
  if worst and counts.cases > 1:
    line += "; lowest dsc: " + ", ".join(f"{case} {score:.3f}" for case, score in worst)
  shown = [m for m in summaries if m in _SHOWN or m.startswith(_NSD)]
  return [line, *_align([_HEAD, *((m, *_describe_score(summaries[m])) for m in shown)])]


def _describe_counts(counts: ClassCounts) -> str:
  """Says how many cases are missed, and what the other cases are."""
  text = f"missed in {counts.missed} of {counts.with_class}"
  if without := counts.cases - counts.with_class:
    text += f"; {without} without it, false alarms in {counts.false_alarms} of them"
  return text


def _describe_score(found: ScoreSummary) -> tuple[str, str, str, str]:
  n = f"{found.n} of {found.n + found.undefined}"
  if not found.n:
    return "undefined", "", "", n
  if math.isnan(found.sd):  # a single case has neither sd nor interval
    return f"{found.mean:.3f}", "", "", n
  return (
    f"{found.mean:.3f} ± {found.sd:.3f}",
    f"{found.ci95_low:.3f} to {found.ci95_high:.3f}",
    f"{found.median:.3f} ({found.quartile_1:.3f} to {found.quartile_3:.3f})",
    n,
  )


def _align(rows: Sequence[Sequence[str]]) -> list[str]:
  widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
  lines = ("  ".join(map(str.ljust, row, widths)) for row in rows)
  # The last column is padded too.
  return [f"  {line}".rstrip() for line in lines]
