"""Breaks off work that takes too long, or that nobody wants any more, at points that it chooses."""

import contextlib
import contextvars
import threading
import time
from collections.abc import Iterator

from attn_unet_jax.runtime.errors import UserError


class Deadline:
  """A time after which work is broken off; `cancel` moves it to now.

  Args:
    seconds: from now until then.
  """

  def __init__(self, seconds: float):
    self.seconds = seconds
    self._end = time.monotonic() + seconds
    self._cancelled = threading.Event()

  @property
  def is_over(self) -> bool:
    """Whether the work is to be broken off."""
    return self._cancelled.is_set() or time.monotonic() >= self._end

  @property
  def reason(self) -> str:
    """Why the work is to be broken off."""
    return "no longer wanted" if self._cancelled.is_set() else f"not done within {self.seconds:g} s"

  def cancel(self) -> None:
    """Asks for the work to be broken off; from any thread."""
    self._cancelled.set()


# Of the thread's own work. A variable of the context, so that what computes need not be told.
_current: contextvars.ContextVar[Deadline | None] = contextvars.ContextVar("deadline", default=None)


@contextlib.contextmanager
def keep_deadline(deadline: Deadline) -> Iterator[None]:
  """Lets `check_deadline` break off the work inside."""
  token = _current.set(deadline)
  try:
    yield
  finally:
    _current.reset(token)


def check_deadline() -> None:
  """Breaks off the work if its time is over; work without a deadline goes on.

  Raises:
    UserError: it is over.
  """
  deadline = _current.get()
  if deadline is not None and deadline.is_over:
    raise UserError(f"broken off: {deadline.reason}")
