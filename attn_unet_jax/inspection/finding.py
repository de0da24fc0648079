"""What is found: a severity, a kind, and a line that says what, how much and the way out."""

from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


class Finding(NamedTuple):
  """One thing about one case.

  Attributes:
    severity: `error`: training refuses it or learns what is wrong; `warning`: probably not meant;
      `note`: good to know.
    kind: a stable word, the same for the same thing in other cases.
    text: one line naming the file, the figures and what to do.
  """

  severity: Severity
  kind: str
  text: str
