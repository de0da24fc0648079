"""What a run writes for people: `metrics.csv`, TensorBoard events, lines or a bar on the screen."""

import csv
import io
from pathlib import Path
from typing import Any

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import write_text

COLUMNS = (
  "epoch",
  "train_seg_loss",
  "validation_seg_loss",
  "test_seg_loss",
  "train_seconds",
  "validation_seconds",
  "test_seconds",
  "learning_rate",
  "validation_dsc",
)

_SHOWN = 60  # characters of a line that is wrong


class EpochLog:
  """One line per epoch in `metrics.csv`, the same to TensorBoard.

  A run that goes on from epoch k keeps the lines up to k: later ones were not part of what the
  checkpoint holds, and are written again.
  """

  def __init__(self, workdir: Path, epochs_done: int):
    self._path = workdir / "metrics.csv"
    kept = [row for row in read_metrics(self._path) if int(row["epoch"]) <= epochs_done]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept)
    write_text(self._path, text.getvalue())
    # Not above: where there is PyTorch, tensorboardX loads it, two seconds of every command.
    from attn_unet_jax.runs.tensorboard import EventFile

    self._events = EventFile(workdir, epochs_done + 1)

  def write_epoch(self, row: dict[str, Any]) -> None:
    """Adds an epoch; a value that was not measured is None."""
    with self._path.open("a", newline="") as file:
      csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(
        {k: _format_value(row[k]) for k in COLUMNS}
      )
    measured = [name for name in COLUMNS[1:] if row[name] is not None]
    self._events.write_epoch(row["epoch"], {name: row[name] for name in measured})

  def close(self) -> None:
    """Closes the event file."""
    self._events.close()


def read_metrics(path: Path) -> list[dict[str, str]]:
  """The rows of a `metrics.csv`; none if there is no file. A torn last line is no row.

  Raises:
    UserError: it is not as `EpochLog` writes it.
  """
  if not path.is_file():
    return []
  whole, end, _ = path.read_bytes().decode(errors="replace").rpartition("\n")
  rows: list[list[str]] = []
  for number, text in enumerate((whole + end).splitlines(), 1):
    line = text.split(",")
    as_written = len(line) == len(COLUMNS) and _is_epoch(line[0]) if rows else line == [*COLUMNS]
    if not as_written:
      raise UserError(
        f"{path}: line {number}, {text[:_SHOWN]!r}, is not as the run wrote it, "
        f"{','.join(COLUMNS)}; put it right, or move the file away: the run goes on without it"
      )
    rows.append(line)
  return [dict(zip(COLUMNS, row, strict=True)) for row in rows[1:]]


def _is_epoch(text: str) -> bool:
  return text.isdecimal() and len(text) < 10


def _format_value(value: Any) -> str:
  if value is None:
    return ""
  return str(value) if isinstance(value, int) else f"{value:.6g}"
