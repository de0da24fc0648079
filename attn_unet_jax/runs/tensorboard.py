"""Writes the TensorBoard events of a run."""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

# If PyTorch is installed, tensorboardX imports it, which takes seconds, for plots that are not used
# here. A None in `sys.modules` makes that import fail, and tensorboardX then works without it.
_LOADED = sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
from tensorboardX.event_file_writer import EventsWriter  # noqa: E402
from tensorboardX.proto.event_pb2 import Event, SessionLog  # noqa: E402
from tensorboardX.proto.summary_pb2 import Summary  # noqa: E402

# Others may import PyTorch later. If it was loaded before, nothing was hidden.
if _LOADED is None:
  del sys.modules["torch"]


class EventFile:
  """An event file in `workdir/events`, written at once and without a thread.

  tensorboardX's SummaryWriter would not do: its thread dies if the disk is full, and a kill loses
  the events that wait in its queue.

  Args:
    workdir: the folder of the run.
    first: the first epoch of this file; it replaces this and later epochs of earlier files.
  """

  def __init__(self, workdir: Path, first: int):
    self._writer = EventsWriter(str(workdir / "events"), f".{os.getpid()}")
    # This event makes TensorBoard drop the later epochs of an earlier start.
    start = SessionLog(status=SessionLog.START)
    self._writer.write_event(Event(step=first, session_log=start))

  def write_epoch(self, epoch: int, values: Mapping[str, float]) -> None:
    """Adds an epoch and flushes it to the disk."""
    entries = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
    self._write(epoch, entries)

  def write_picture(self, epoch: int, name: str, png: bytes) -> None:
    """Adds a picture, a PNG file."""
    self._write(epoch, [Summary.Value(tag=name, image=Summary.Image(encoded_image_string=png))])

  def _write(self, epoch: int, entries: list[Summary.Value]) -> None:
    event = Event(wall_time=time.time(), step=epoch, summary=Summary(value=entries))
    self._writer.write_event(event)
    # A kill then loses no epoch.
    self._writer.flush()

  def close(self, *, done: bool) -> None:
    """Closes the file, which says nothing of how the training ended."""
    self._writer.close()
