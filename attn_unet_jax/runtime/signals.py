"""Handles the signals that ask a command to stop, and decides its exit status."""

import dataclasses
import errno
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from attn_unet_jax.runtime.errors import UserError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

# A full disk, quota or file is the user's to mend also where the error names no file.
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Interrupted(BaseException):
  """An exception that stops the program after a signal, once all that has to be is saved.

  Like KeyboardInterrupt it is no `Exception`, so that `except Exception` does not catch it.
  """

  def __init__(self, signal_number: int):
    super().__init__(f"stopped by signal {signal_number}")
    self.number = signal_number
    self.status = 128 + signal_number  # as shells report a process that a signal ended


@dataclasses.dataclass
class StopRequest:
  """A record of the signals that arrive within `defer_signals`.

  Attributes:
    number: the last signal that arrived; None before the first.
    at_once: whether the next signal raises `Interrupted` at the point where the program is.
  """

  number: int | None = None
  at_once: bool = False

  def raise_if_stopped(self) -> None:
    """Raises `Interrupted` if a signal has arrived."""
    if self.number is not None:
      raise Interrupted(self.number)


@contextmanager
def defer_signals(stop: StopRequest) -> Iterator[None]:
  """Records SIGTERM and SIGINT in `stop` within this context, instead of raising."""

  def record_signal(number: int, _: FrameType | None) -> None:
    stop.number = number
    if stop.at_once:
      stop.at_once = False  # a second signal must not break off the saving that the first began
      raise Interrupted(number)

  before = {number: signal.signal(number, record_signal) for number in STOP_SIGNALS}
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def exit_status(error: BaseException) -> int:
  """Returns the exit status of a command that ends by an exception."""
  if isinstance(error, Interrupted):
    return error.status
  if isinstance(error, KeyboardInterrupt):
    return 128 + signal.SIGINT
  if isinstance(error, BrokenPipeError):
    return 128 + signal.SIGPIPE
  if isinstance(error, OSError):
    # An error that names a file is about a path that the user gave. Others, such as a lost
    # connection, are ours.
    return 1 if error.filename is None and error.errno not in _DISK_FULL else 2
  return 2 if isinstance(error, UserError) else 1
