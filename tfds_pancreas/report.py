"""What a build found out about its cases: a JSON file and pictures in the data set's folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from attn_unet_jax.runtime.errors import UserError
from tfds_pancreas.contact_sheet import write_sheets
from tfds_pancreas.parts import Part
from tfds_pancreas.records import REPORT_FILE


@dataclass(frozen=True)
class Report:
  """What is known of all cases.

  Attributes:
    dataset: 'NAME/CONFIG'.
    rules: thresholds of the checks.
    excluded: reason by case id, of cases that are left out unseen.
    expected: ids of the whole collection, where known.
    parts: every case that was read.
  """

  dataset: str
  rules: Mapping[str, Any]
  excluded: Mapping[str, str]
  expected: Sequence[str]
  parts: Sequence[Part]

  @cached_property
  def built(self) -> list[Part]:
    """The good cases, in the order of their ids."""
    return sorted((part for part in self.parts if part.size), key=lambda part: part.id)

  @cached_property
  def left_out(self) -> list[Part]:
    """The bad cases, in the order of their ids."""
    return sorted((part for part in self.parts if not part.size), key=lambda part: part.id)

  def require(self, *, skip_bad_cases: bool) -> None:
    """Stops a build with bad cases, unless they may be skipped and others are left.

    Raises:
      UserError: names every bad case with its figures.
    """
    if self.built and (skip_bad_cases or not self.left_out):
      return
    named = [f"{part.id}: {'; '.join(part.problems)}" for part in self.left_out]
    way_out = "correct their files, or leave them out by --skip_bad_cases"
    way_out = way_out if self.built else "no other case is there, so there is nothing to build"
    raise UserError(
      f"{self.dataset}: {len(named)} of {len(self.parts)} cases cannot be used; {way_out} | "
      + " | ".join(named)
    )

  def write(self, folder: Path) -> None:
    """Writes `build_report.json` and `contact_sheet_1.png`, ... of 20 cases each."""
    known = {part.id for part in self.parts} | self.excluded.keys()
    content = {
      "dataset": self.dataset,
      "rules": dict(self.rules),
      "left_out": {
        part.id: {"problems": part.problems, "figures": part.figures} for part in self.left_out
      },
      "excluded": dict(self.excluded),
      "absent": [case for case in self.expected if case not in known],
      "contact_sheets": write_sheets(folder, (part.picture for part in self.built)),
      "built": {part.id: part.figures for part in self.built},
    }
    (folder / REPORT_FILE).write_text(json.dumps(content, indent=1) + "\n")
