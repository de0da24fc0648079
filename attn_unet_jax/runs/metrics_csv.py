"""Reads and writes `metrics.csv`, with one line per epoch, and draws it as `curves.png`."""

import csv
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from attn_unet_jax.drawing.curves import draw_curves
from attn_unet_jax.runs.attention_csv import GateLog
from attn_unet_jax.runs.writers import open_writers
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import atomic_write, write_text

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

_DRAW_EVERY_S = 2.0
_MAX_SHOWN = 60  # characters of a wrong line that its message shows


class EpochLog:
  """A log of epochs: `metrics.csv`, `attention.csv`, `curves.png` and writers such as TensorBoard.

  A run that resumes after epoch k keeps the lines up to k. It trains the later epochs again, since
  its checkpoint does not hold them, and writes their lines again.

  Args:
    workdir: the folder of the run.
    epochs_done: k.
    writers: some of `WRITERS`.

  Raises:
    UserError: a file is damaged, or a writer cannot be opened.
  """

  def __init__(self, workdir: Path, epochs_done: int, writers: Sequence[str] = ("tensorboard",)):
    self._path = workdir / "metrics.csv"
    self._draws, self._is_drawn, self._drawn_at = True, True, -math.inf
    kept = [row for row in read_metrics(self._path) if int(row["epoch"]) <= epochs_done]
    self._gates = GateLog(workdir, epochs_done)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(kept)
    # Rewritten whole, in one step: a kill leaves the old file or the new one.
    write_text(self._path, text.getvalue())
    self._writers = open_writers(writers, workdir, epochs_done + 1)

  def __enter__(self) -> Self:
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self.close(done=kind is None)

  def write_epoch(self, row: dict[str, Any]) -> None:
    """Adds an epoch; a value that was not measured is None.

    Raises:
      UserError: the file has vanished since the run began or was resumed.
    """
    if not self._path.is_file():  # which opening it would make again, without its lines
      raise UserError(f"{self._path}: gone since the run began or was resumed; bring it back")
    # A line at the end is enough, and a run of many epochs does not write them all again.
    with self._path.open("a", newline="") as file:
      csv.DictWriter(file, COLUMNS, lineterminator="\n").writerow(
        {k: _format_value(row[k]) for k in COLUMNS}
      )
    # Writers take numbers only: an epoch without validation is a gap in its curve.
    measured = [name for name in COLUMNS[1:] if row[name] is not None]
    self._write_scalars(row["epoch"], {name: row[name] for name in measured})
    self._is_drawn = False
    # Of epochs of less than a second, as in a trial, not every one is drawn.
    if time.monotonic() - self._drawn_at > _DRAW_EVERY_S:
      self._draw_curves()

  def write_gates(self, epoch: int, gates: Mapping[str, Mapping[str, float]]) -> None:
    """Adds an epoch to `attention.csv` and to the writers: coefficients by gate and place."""
    if not gates:
      return
    self._gates.write_epoch(epoch, gates)
    tags = {
      f"attention/{name}/{place}": one for name in gates for place, one in gates[name].items()
    }
    self._write_scalars(epoch, {tag: one for tag, one in tags.items() if math.isfinite(one)})

  def write_picture(self, epoch: int, name: str, draw: Callable[[str], bytes]) -> None:
    """Adds a picture of an epoch to the writers that take one; what prevents that ends no training.

    Args:
      epoch: of the picture.
      name: what it shows.
      draw: returns a PNG file with a title, or b'' where there is nothing to draw.
    """
    if not self._writers:
      return
    try:
      png = draw(f"{name}, epoch {epoch}")
    except Exception as error:
      print_line(f"no picture of epoch {epoch}: {error}")
      return
    for writer in self._writers if png else ():
      writer.write_picture(epoch, name, png)

  def _write_scalars(self, epoch: int, values: Mapping[str, float]) -> None:
    for writer in self._writers:
      writer.write_epoch(epoch, values)

  def _draw_curves(self) -> None:
    """Draws the curves; what prevents that ends no training, and is said once."""
    if self._is_drawn or not self._draws:
      return
    try:
      if not (rows := read_metrics(self._path)):
        return  # the file, and perhaps its folder, has vanished, which the caller says
      picture = draw_curves(str(self._path.parent), rows)
      with atomic_write(self._path.with_name("curves.png")) as temporary:
        temporary.write_bytes(picture)
    # A picture is not worth a training, whatever prevents it.
    except Exception as error:
      self._draws = False
      print_line(f"no curves.png from now on: {error}")
    self._is_drawn, self._drawn_at = True, time.monotonic()

  def close(self, *, done: bool = True) -> None:
    """Closes the writers, and draws the curves to their end.

    Args:
      done: whether the training came to its end.
    """
    for writer in self._writers:
      writer.close(done=done)
    self._draw_curves()


def read_metrics(path: Path) -> list[dict[str, str]]:
  """Reads the rows of a `metrics.csv`; returns none if there is no file.

  Raises:
    UserError: a line is not as `EpochLog` writes it.
  """
  if not path.is_file():
    return []
  # A kill may leave a last line without its end, which does not count as a row.
  whole, end, _ = path.read_bytes().decode(errors="replace").rpartition("\n")
  rows: list[list[str]] = []
  for number, text in enumerate((whole + end).splitlines(), 1):
    # Not by `csv`: no value has a comma or a quote, and what has one is not as the run wrote it.
    line = text.split(",")
    as_written = len(line) == len(COLUMNS) and _is_epoch(line[0]) if rows else line == [*COLUMNS]
    if not as_written:
      raise UserError(
        f"{path}: line {number}, {text[:_MAX_SHOWN]!r}, is not as the run wrote it, "
        f"{','.join(COLUMNS)}; put it right, or move the file away: the run goes on without it"
      )
    rows.append(line)
  return [dict(zip(COLUMNS, row, strict=True)) for row in rows[1:]]


def _is_epoch(text: str) -> bool:
  # More digits are no epoch of a run, and beyond some thousands `int` would raise.
  return text.isdecimal() and len(text) < 10


def _format_value(value: Any) -> str:
  if value is None:
    return ""
  # Integers are kept exact: the epoch is read back as a key.
  return str(value) if isinstance(value, int) else f"{value:.6g}"
