"""Lines and bars on the screen."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tqdm import tqdm

_silent = False  # on every host of a run but the primary one


def silence_output() -> None:
  """Prints nothing from now on: another host of the same run speaks."""
  global _silent
  _silent = True


def print_line(line: str) -> None:
  """Prints a line, on the primary host alone; it does not tear a progress bar."""
  if not _silent:
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


def show_progress(items: Iterable[Any], total: int, what: str) -> Iterator[Any]:
  """A bar with the time left on a terminal; nothing elsewhere, where `say` has plain lines."""
  shown = sys.stderr.isatty() and not _silent
  return iter(tqdm(items, total=total, desc=what, leave=False, disable=not shown))


def format_duration(seconds: float) -> str:
  """`75.2` -> `1m15s`."""
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
