"""Signals that ask a command to stop, and the exit status that says how it ended."""

import dataclasses
import errno
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from attn_unet_jax.runtime.errors import UserError

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # where Python does not know the file


class Interrupted(BaseException):
  """A signal asked the program to stop, and what had to be saved is saved."""

  def __init__(self, signal_number: int):
    super().__init__(f"stopped by signal {signal_number}")
    self.number = signal_number
    self.status = 128 + signal_number


@dataclasses.dataclass
class StopRequest:
  """Whether a signal asked to stop while signals were `noted`.

  Attributes:
    number: the last signal that did.
    at_once: whether the next one raises `Interrupted` where the program is.
  """

  number: int | None = None
  at_once: bool = False

  def raise_if_stopped(self) -> None:
    """Raises `Interrupted` if one did."""
    if self.number is not None:
      raise Interrupted(self.number)


@contextmanager
def defer_signals(stop: StopRequest) -> Iterator[None]:
  """While open, SIGTERM and SIGINT do no more than `stop` says."""

  def note(number: int, _: FrameType | None) -> None:
    stop.number = number
    if stop.at_once:
      stop.at_once = False  # one is enough: what it makes the program do is not broken off
      raise Interrupted(number)

  before = {number: signal.signal(number, note) for number in STOP_SIGNALS}
  try:
    yield
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)


def exit_status(error: BaseException) -> int:
  """The exit status of a command that an exception ends."""
  if isinstance(error, Interrupted):
    return error.status
  if isinstance(error, KeyboardInterrupt):
    return 128 + signal.SIGINT
  if isinstance(error, BrokenPipeError):
    return 128 + signal.SIGPIPE
  if isinstance(error, OSError):
    return 1 if error.filename is None and error.errno not in _DISK_FULL else 2
  return 2 if isinstance(error, UserError) else 1
