"""Prints lines and progress bars."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tqdm import tqdm

_BAR_EVERY_S, _LINE_EVERY_S = 0.5, 60.0

_WARNING = "warning: "

# True on every host of a run but the primary one. A module's variable, so that who prints a line
# need not know how many hosts there are.
_silent = False


def silence_output() -> None:
  """Silences this process from now on, since another host of its run prints."""
  global _silent
  _silent = True


def escape_controls(text: str) -> str:
  r"""Returns a text whose control and format characters are written out, such as `\x1b`.

  A file's name, a series' description and a key of a JSON file may hold any character. A terminal
  would obey some of them: move its cursor, change its title, or show a text backwards.
  """
  return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def strip_severity(line: str) -> str:
  """Returns a line of the screen for a list of warnings, in which its first word says nothing."""
  return line.removeprefix(_WARNING)


def print_line(line: str) -> None:
  """Prints a line without tearing a progress bar; only the primary host prints."""
  if not _silent:
    tqdm.write(escape_controls(line), file=sys.stdout)
    sys.stdout.flush()  # a log that is a file shows a line when it is printed, not minutes later


def show_progress(items: Iterable[Any], total: int, what: str) -> Iterator[Any]:
  """Yields the items, and shows how many are done and the time left.

  On a terminal by a bar, in a log, which a bar would fill, by a line a minute.
  """
  if sys.stderr.isatty() and not _silent:
    yield from tqdm(items, total=total, desc=what, leave=False)
    return
  began = said = time.monotonic()
  for done, item in enumerate(items):
    now = time.monotonic()
    if done and now - said >= _LINE_EVERY_S:
      print_line(f"{what}: {done} of {total}, {estimate_time_left(now - began, done, total)} left")
      said = now
    yield item


@contextlib.contextmanager
def watch_progress(name: str, total: int, count_done: Callable[[], int]) -> Iterator[None]:
  """Shows on stderr, while the work inside goes on, how many of its cases are done.

  On a terminal by a bar, in a log by a line a minute.

  Args:
    name: of the work.
    total: number of cases.
    count_done: returns how many are done; called from another thread.
  """
  finished = threading.Event()
  show = _update_bar if sys.stderr.isatty() else _print_lines
  thread = threading.Thread(target=show, args=(name, total, count_done, finished), daemon=True)
  thread.start()
  try:
    yield
  finally:
    finished.set()
    thread.join()


def _update_bar(
  name: str, total: int, count_done: Callable[[], int], finished: threading.Event
) -> None:
  with tqdm(total=total, desc=name, unit="case", smoothing=0.05, leave=False) as bar:
    while not finished.wait(_BAR_EVERY_S):
      bar.update(count_done() - bar.n)
      bar.refresh()  # so that the clock runs on while a case takes its time


def _print_lines(
  name: str, total: int, count_done: Callable[[], int], finished: threading.Event
) -> None:
  start = time.monotonic()
  while not finished.wait(_LINE_EVERY_S):
    done = count_done()
    left = estimate_time_left(time.monotonic() - start, done, total)
    line = f"{name}: {done} of {total} cases" + (f", {left} left" if left else "")
    print(escape_controls(line), file=sys.stderr, flush=True)


def estimate_time_left(seconds: float, done: int, total: int) -> str:
  """Returns how long the rest takes at the pace so far, as `30m00s`; '' before the first case."""
  return format_duration(seconds / done * (total - done)) if done else ""


def format_duration(seconds: float) -> str:
  """Formats seconds as hours, minutes and seconds: `75.2` gives `1m15s`."""
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
