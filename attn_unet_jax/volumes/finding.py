"""The finding: a severity, a kind, and a line that says what, how much and the way out."""

from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


class Finding(NamedTuple):
  """A finding about one case.

  Attributes:
    severity: `error` if training refuses the case or learns something wrong from it; `warning` if
      it is probably not meant; `note` if it is good to know.
    kind: a stable word, by which findings of several cases are counted.
    text: one line that names the file and the figures, and says what to do.
  """

  severity: Severity
  kind: str
  text: str
