"""Reads and writes `attention.csv` of a run: where its gates look after each epoch."""

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import write_text
from attn_unet_jax.volumes.places import PLACES

_COLUMNS = ("epoch", "gate", *PLACES)

# An epoch, a gate, and its mean coefficient by place, NaN where a place has no voxels.
GateRow = tuple[int, str, Mapping[str, float]]


class GateLog:
  """A log of gates, with a line for each epoch and gate; without gates there is no file.

  A run that resumes after epoch k keeps the lines up to k, as `EpochLog` does.
  """

  def __init__(self, workdir: Path, epochs_done: int):
    self._path = workdir / "attention.csv"
    self._rows = [row for row in read_gate_rows(self._path) if row[0] <= epochs_done]

  def write_epoch(self, epoch: int, gates: Mapping[str, Mapping[str, float]]) -> None:
    """Adds an epoch: the mean coefficients of each gate by place."""
    if not gates:
      return
    self._rows += [(epoch, name, means) for name, means in gates.items()]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for row, name, means in self._rows:
      values = (means[place] for place in PLACES)
      writer.writerow([row, name, *("" if math.isnan(one) else f"{one:.6g}" for one in values)])
    # Whole, in one step: a kill leaves no half of a line.
    write_text(self._path, text.getvalue())


def read_gate_rows(path: Path) -> list[GateRow]:
  """Reads the rows of a log of gates; returns none if there is no file.

  Raises:
    UserError: the file is not as `GateLog` writes it.
  """
  if not path.is_file():
    return []
  try:
    with path.open(newline="", encoding="utf-8") as file:
      return [
        (int(row["epoch"]), row["gate"], {place: float(row[place] or "nan") for place in PLACES})
        for row in csv.DictReader(file)
      ]
  except (KeyError, TypeError, ValueError, csv.Error) as error:
    raise UserError(
      f"{path}: not as the run wrote it ({error}); put it right, or move the file away: the run "
      "goes on without it"
    ) from None


def average_runs(runs: Sequence[Sequence[GateRow]]) -> list[GateRow]:
  """Returns the mean of each epoch and gate over the runs that have it, such as those of folds."""
  found: dict[tuple[int, str], list[Mapping[str, float]]] = {}
  for epoch, gate, means in (row for rows in runs for row in rows):
    found.setdefault((epoch, gate), []).append(means)
  return [
    (epoch, gate, {place: _average([one[place] for one in means]) for place in PLACES})
    # Folds may have stopped at different epochs: the order of the first one is not that of all.
    for (epoch, gate), means in sorted(found.items())
  ]


def _average(values: Sequence[float]) -> float:
  # A place may have no voxels in one of the runs.
  known = [value for value in values if math.isfinite(value)]
  return statistics.fmean(known) if known else math.nan
