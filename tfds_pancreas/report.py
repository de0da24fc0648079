"""What a build found out about its cases: a JSON file and pictures in the data set's folder."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from attn_unet_jax.errors import UserError
from tfds_pancreas.checked_case import CheckedCase
from tfds_pancreas.contact_sheet import tile, write_sheets
from tfds_pancreas.records import REPORT_FILE


@dataclass
class Report:
  """Collects cases as they come.

  Attributes:
    dataset: 'NAME/CONFIG'.
    rules: thresholds of the checks.
    excluded: reason by case id, of cases that are left out unseen.
    expected: ids of the whole collection, where known.
  """

  dataset: str
  rules: Mapping[str, Any]
  excluded: Mapping[str, str]
  expected: Sequence[str]
  built: dict[str, Any] = field(default_factory=dict)
  left_out: dict[str, Any] = field(default_factory=dict)
  _tiles: list[np.ndarray] = field(default_factory=list)

  def add(self, case: CheckedCase) -> None:
    """Takes up a case's figures and, of a good one, a picture."""
    if case.problems:
      self.left_out[case.id] = {"problems": case.problems, "figures": case.figures}
      return
    assert case.pair is not None
    self.built[case.id] = case.figures
    self._tiles.append(tile(case.pair.image.array, case.pair.label.array, _number(case.id)))

  def require(self, *, skip_bad_cases: bool) -> None:
    """Stops a build with bad cases, unless they may be skipped and others are left.

    Raises:
      UserError: names every bad case with its figures.
    """
    if self.built and (skip_bad_cases or not self.left_out):
      return
    total = len(self.built) + len(self.left_out)
    named = [f"{case}: {'; '.join(bad['problems'])}" for case, bad in sorted(self.left_out.items())]
    way_out = "correct their files, or leave them out by --skip_bad_cases"
    way_out = way_out if self.built else "no other case is there, so there is nothing to build"
    raise UserError(
      f"{self.dataset}: {len(named)} of {total} cases cannot be used; {way_out} | "
      + " | ".join(named)
    )

  def write(self, folder: Path) -> None:
    """Writes `build_report.json` and `contact_sheet_1.png`, ... of 20 cases each."""
    known = {*self.built, *self.left_out, *self.excluded}
    content = {
      "dataset": self.dataset,
      "rules": dict(self.rules),
      "left_out": self.left_out,
      "excluded": dict(self.excluded),
      "absent": [case for case in self.expected if case not in known],
      "contact_sheets": write_sheets(folder, self._tiles),
      "built": self.built,
    }
    (folder / REPORT_FILE).write_text(json.dumps(content, indent=1) + "\n")


def _number(case_id: str) -> str:
  """The last number in an id: all that a picture can write."""
  numbers = re.findall(r"\d+", case_id)
  return numbers[-1] if numbers else ""
