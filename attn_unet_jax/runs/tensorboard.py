"""TensorBoard's events of a run."""

import os
import sys
import time
from pathlib import Path

# Where PyTorch is installed tensorboardX would load it, for seconds, to draw what we do not.
_LOADED = sys.modules.setdefault("torch", None)  # type: ignore[arg-type]  # None: cannot be imported
from tensorboardX.event_file_writer import EventsWriter  # noqa: E402
from tensorboardX.proto.event_pb2 import Event, SessionLog  # noqa: E402
from tensorboardX.proto.summary_pb2 import Summary  # noqa: E402

if _LOADED is None:
  del sys.modules["torch"]


class EventFile:
  """An event file in `workdir`; `first`: the epoch from which it replaces those of earlier files.

  Not tensorboardX's SummaryWriter: its thread dies of a full disk, and a kill loses what waits in
  its queue.
  """

  def __init__(self, workdir: Path, first: int):
    self._writer = EventsWriter(str(workdir / "events"), f".{os.getpid()}")
    start = SessionLog(status=SessionLog.START)
    self._writer.write_event(Event(step=first, session_log=start))

  def write_epoch(self, epoch: int, values: dict[str, float]) -> None:
    """Adds an epoch, and sees that it reaches the disk."""
    told = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
    event = Event(wall_time=time.time(), step=epoch, summary=Summary(value=told))
    self._writer.write_event(event)
    self._writer.flush()

  def close(self) -> None:
    """Closes the file."""
    self._writer.close()
