"""What a build found out about its cases: a JSON file and pictures in the data set's folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from attn_unet_jax.runtime.errors import UserError
from tfds_pancreas.case_parts import CasePart
from tfds_pancreas.contact_sheet import write_contact_sheets
from tfds_pancreas.records import REPORT_FILE


@dataclass(frozen=True)
class BuildReport:
  """The findings of a build about all of its cases.

  Attributes:
    dataset: 'NAME/CONFIG'.
    rules: thresholds of the checks.
    exclusions: reason by case id, of cases that are left out unseen.
    collection_ids: ids of the whole collection, where known.
    parts: every case that was read.
    accepted: the reasons for doubt that the user accepts.
  """

  dataset: str
  rules: Mapping[str, Any]
  exclusions: Mapping[str, str]
  collection_ids: Sequence[str]
  parts: Sequence[CasePart]
  accepted: Sequence[str] = ()

  @cached_property
  def good_parts(self) -> list[CasePart]:
    """The good cases, in the order of their ids."""
    return sorted((part for part in self.parts if part.size), key=lambda part: part.id)

  @cached_property
  def bad_parts(self) -> list[CasePart]:
    """The bad cases, in the order of their ids."""
    return sorted((part for part in self.parts if not part.size), key=lambda part: part.id)

  def require_good_cases(self, *, skip_bad_cases: bool) -> None:
    """Stops a build with bad cases, unless they may be skipped and others are left.

    Raises:
      UserError: names every bad case with its figures.
    """
    if self.good_parts and (skip_bad_cases or not self.bad_parts):
      return
    # All bad cases at once: one at a time, each would cost another reading of the collection.
    named = [f"{part.id}: {'; '.join(part.problems)}" for part in self.bad_parts]
    way_out = "correct their files, or leave them out by --skip_bad_cases"
    way_out = way_out if self.good_parts else "there is no other case, so there is nothing to build"
    raise UserError(
      f"{self.dataset}: {len(named)} of {len(self.parts)} cases cannot be used; {way_out} | "
      + " | ".join(named)
    )

  def list_doubts(self) -> list[str]:
    """Returns lines for the screen: of each kind of doubt the first, and how many there are."""
    lines = []
    for kind in ("accepted", "warning"):
      found = [(part.id, line) for part in self.good_parts for line in _doubts_of(part, kind)]
      if found:
        case, first = found[0]
        more = f" (and {len(found) - 1} more, in {REPORT_FILE})" if len(found) > 1 else ""
        lines.append(f"{self.dataset}: {case}: {first}{more}")
    return lines

  def write_files(self, folder: Path) -> None:
    """Writes `build_report.json` and `contact_sheet_1.png`, ... of 20 cases each."""
    known = {part.id for part in self.parts} | self.exclusions.keys()
    content = {
      "dataset": self.dataset,
      "rules": dict(self.rules),
      "accepted": list(self.accepted),
      "left_out": {
        part.id: {"problems": part.problems, "figures": part.figures} for part in self.bad_parts
      },
      "excluded": dict(self.exclusions),
      "absent": [case for case in self.collection_ids if case not in known],
      # One picture at a time: those of a large collection would fill the memory.
      "contact_sheets": write_contact_sheets(folder, (part.picture for part in self.good_parts)),
      "built": {part.id: part.figures for part in self.good_parts},
    }
    (folder / REPORT_FILE).write_text(json.dumps(content, indent=1) + "\n")


def _doubts_of(part: CasePart, kind: str) -> list[str]:
  return [line for line in part.figures.get("doubts", ()) if line.startswith(kind)]
