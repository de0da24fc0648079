"""How far a long piece of work is, and how long it will still take."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

_TERMINAL_S, _LOG_S = 0.5, 60.0


@contextlib.contextmanager
def shown(name: str, total: int, count: Callable[[], int]) -> Iterator[None]:
  """Shows on stderr how many of `total` cases are done, as `count` says.

  On a terminal by a bar, in a log by a line a minute.
  """
  stop = threading.Event()
  show = _bar if sys.stderr.isatty() else _lines
  thread = threading.Thread(target=show, args=(name, total, count, stop), daemon=True)
  thread.start()
  try:
    yield
  finally:
    stop.set()
    thread.join()


def time_left(seconds: float, done: int, total: int) -> str:
  """'12 min' of work are left if it goes on as before; '' where nothing can be said yet."""
  if not done:
    return ""
  minutes = seconds / done * (total - done) / 60
  return f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.0f} min"


def _bar(name: str, total: int, count: Callable[[], int], stop: threading.Event) -> None:
  with tqdm(total=total, desc=name, unit="case", smoothing=0.05, leave=False) as bar:
    while not stop.wait(_TERMINAL_S):
      bar.update(count() - bar.n)
      bar.refresh()  # the clock runs on while a case takes its time


def _lines(name: str, total: int, count: Callable[[], int], stop: threading.Event) -> None:
  start = time.monotonic()
  while not stop.wait(_LOG_S):
    done = count()
    left = time_left(time.monotonic() - start, done, total)
    print(
      f"{name}: {done} of {total} cases{left and f', {left} left'}", file=sys.stderr, flush=True
    )
