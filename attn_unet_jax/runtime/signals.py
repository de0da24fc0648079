"""Handles the signals that ask a command to stop, and decides its exit status."""

import dataclasses
import errno
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from attn_unet_jax.runtime.console import print_line
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
  """A record of the signals that arrive within `defer_signals` or `obey_first_signal`.

  Attributes:
    number: the last signal that arrived; None before the first.
    at_once: whether the next signal raises `Interrupted` at the point where the program is.
  """

  number: int | None = None
  at_once: bool = False

  def raise_if_stopped(self) -> None:
    """Raises `Interrupted` if a signal has arrived."""
    if self.number is not None:
      raise_interrupted(self.number)


# The requests of the contexts that are open, outermost first.
_open_requests: list[StopRequest] = []


def raise_interrupted(number: int) -> NoReturn:
  """Raises `Interrupted` for a signal, of this process or of another host's.

  `obey_first_signal` passes over the signals that follow.
  """
  _note_signal(number)
  raise Interrupted(number)


def forget_signals() -> None:
  """Takes back that signals have arrived; for an `Interrupted` that Python has dropped."""
  for request in _open_requests:
    request.number = None


def _note_signal(number: int) -> None:
  for request in _open_requests:
    request.number = number


@contextmanager
def defer_signals(stop: StopRequest) -> Iterator[None]:
  """Records SIGTERM and SIGINT in `stop` within this context, instead of raising."""

  def record_signal(number: int, _: FrameType | None) -> None:
    """Notes a signal; raises where the context asks for that at once."""
    _note_signal(number)
    if stop.at_once:
      stop.at_once = False  # a second signal must not break off the saving that the first began
      raise Interrupted(number)

  with _handle_signals(stop, record_signal):
    yield


@contextmanager
def obey_first_signal() -> Iterator[None]:
  """Raises `Interrupted` at the first SIGTERM or SIGINT within this context, passes over others.

  An impatient person, or a scheduler, sends a second one while the first is still being obeyed. It
  must not break off what that writes, wherever the program is by then.
  """
  stop = StopRequest()

  def raise_first(number: int, _: FrameType | None) -> None:
    """Raises at the first signal alone."""
    if stop.number is None:
      raise_interrupted(number)

  with _handle_signals(stop, raise_first):
    yield


@contextmanager
def _handle_signals(
  stop: StopRequest, handler: Callable[[int, FrameType | None], None]
) -> Iterator[None]:
  """Handles the stop signals by `handler` within this context; `stop` is told of each."""
  _open_requests.append(stop)
  before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
  try:
    yield
  finally:
    for number, earlier in before.items():
      signal.signal(number, earlier)
    _open_requests.pop()


@contextmanager
def acknowledge_signals(work: str) -> Iterator[None]:
  """Says at once that a stop signal has arrived within work that nothing can break off.

  Python runs its handlers only between two of its own operations, and a compilation is one of them.
  In another thread than the main one, which signals do not reach, this does nothing.

  Args:
    work: what goes on, such as 'compiling the training step'.
  """
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  reader, writer = os.pipe()
  os.set_blocking(writer, False)

  def watch_signals() -> None:
    """Says once that a signal has arrived; runs in a thread of its own."""
    acknowledged = False
    while number := os.read(reader, 1):
      if number[0] in STOP_SIGNALS and not acknowledged:
        acknowledged = True
        print_line(f"signal {number[0]} has arrived: stops when this is done: {work}")

  # The system's own handler writes the number of a signal here, whatever Python is doing.
  before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  watcher = threading.Thread(target=watch_signals, daemon=True)
  watcher.start()
  try:
    yield
  finally:
    signal.set_wakeup_fd(before)
    os.close(writer)  # which ends the watcher
    watcher.join()
    os.close(reader)


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
