"""Reports what was found, for people and for programs: lines, a table, JSON and pictures."""

import collections
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attn_unet_jax.drawing.contact_sheet import SheetCase, write_contact_sheets
from attn_unet_jax.inspection.inspected_case import InspectedCase
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import write_text
from attn_unet_jax.volumes.finding import SEVERITIES, Finding

# Lines of one kind that are printed. The JSON has them all, and errors are always printed.
_MAX_SHOWN = {"error": 10**9, "warning": 10, "note": 3}
# Of these one line tells all: they are a property of the collection, and of the recipe.
_SHOWN_ONCE = ("patch", "field")


def count_by_severity(findings: Sequence[Finding]) -> dict[str, int]:
  """Counts the findings by severity."""
  return {name: sum(one.severity == name for one in findings) for name in SEVERITIES}


def format_findings(findings: Sequence[Finding]) -> Iterator[str]:
  """Yields a line for each finding, errors first and findings of one kind together."""
  for severity in SEVERITIES:
    some = [one for one in findings if one.severity == severity]
    # Kinds in the order in which they were found first, which `set` would not keep.
    for kind in dict.fromkeys(one.kind for one in some):
      texts = [one.text for one in some if one.kind == kind]
      if kind in _SHOWN_ONCE:
        others = f" (and {len(texts) - 1} more)" if len(texts) > 1 else ""
        yield f"{severity:<8} {texts[0]}{others}"
        continue
      shown = texts[: _MAX_SHOWN[severity]]
      yield from (f"{severity:<8} {text}" for text in shown)
      if len(texts) > len(shown):
        yield f"{severity:<8} ... and {len(texts) - len(shown)} more of this kind"


def format_table(cases: Sequence[InspectedCase]) -> Iterator[str]:
  """Yields a table of the quantities: lowest, median and highest over the cases."""
  rows = _collect_columns(cases)
  if not rows:
    return
  width = max(map(len, rows)) + 2
  yield f"{'':<{width}}{'cases':>7}{'lowest':>10}{'median':>10}{'highest':>10}"
  for name, values in rows.items():
    ends = (min(values), float(np.median(values)), max(values))
    yield f"{name:<{width}}{len(values):>7}" + "".join(f"{value:>10.4g}" for value in ends)
  found = collections.Counter(c.figures["orientation"] for c in cases if "orientation" in c.figures)
  yield "orientation: " + ", ".join(f"{code} {number}" for code, number in found.most_common())


def write_report(
  folder: Path,
  about: Mapping[str, Any],
  findings: Sequence[Finding],
  cases: Sequence[InspectedCase],
  classes: Sequence[str],
) -> None:
  """Writes `check.json` and contact sheets, which have the numbers of the cases in it.

  Args:
    folder: where to; made if it is missing.
    about: what was looked at.
    findings: the findings that belong to no single case.
    cases: all cases, with their own findings.
    classes: the names of all classes, in the order of their colours.

  Raises:
    UserError: the folder cannot be written.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    numbered = list(enumerate(cases, start=1))
    content = {
      **about,
      "findings": [one._asdict() for one in findings],
      "contact_sheets": _write_sheets(folder, numbered, classes),
      "cases": [_case_entry(number, case) for number, case in numbered],
    }
    write_text(folder / "check.json", json.dumps(content, indent=1) + "\n")
  except OSError as error:
    raise UserError(f"--output={folder}: cannot be written ({error.strerror})") from None


def _write_sheets(
  folder: Path, numbered: Sequence[tuple[int, InspectedCase]], classes: Sequence[str]
) -> list[str]:
  # A case that could not be read has a number and no picture.
  return write_contact_sheets(
    folder,
    (
      SheetCase(number, case.id, case.picture, _list_millilitres(case, classes))
      for number, case in numbered
      if case.picture is not None
    ),
  )


def _list_millilitres(case: InspectedCase, classes: Sequence[str]) -> dict[str, float | None]:
  """Returns the volume of each class; none of them for a case without a label."""
  if "ml" not in case.figures:
    return {}
  # Where values are unknown nothing was measured, which is not the same as 0 ml.
  measured = not case.has_kind("label_values")
  return {name: case.figures["ml"].get(name, 0.0) if measured else None for name in classes}


def _case_entry(number: int, case: InspectedCase) -> dict[str, Any]:
  findings = [one._asdict() for one in case.findings]
  return {"number": number, "id": case.id, "findings": findings, **case.figures}


def _collect_columns(cases: Sequence[InspectedCase]) -> dict[str, list[float]]:
  rows: dict[str, list[float]] = {}
  for case in cases:
    for name, value in _list_quantities(case.figures):
      rows.setdefault(name, []).append(value)
  return rows


def _list_quantities(figures: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
  for key, what in (("spacing_mm", "spacing {} mm"), ("field_mm", "field {} mm")):
    # A case that could not be read has no figures.
    for axis, value in zip("XYZ", figures.get(key, ()), strict=False):
      yield what.format(axis), value
  for key, what in (("low_hu", "0.1 % lowest HU"), ("high_hu", "0.1 % highest HU")):
    if key in figures:
      yield what, figures[key]
  for organ, millilitres in figures.get("ml", {}).items():
    yield f"{organ} ml", millilitres
  for organ, under in figures.get("under_label", {}).items():
    yield f"{organ} mean HU", under["mean_hu"]
