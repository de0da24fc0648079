import io
import sys
import time
from types import SimpleNamespace

import pytest

from attn_unet_jax.runtime import console


class Screen(io.StringIO):
  def __init__(self, terminal):
    super().__init__()
    self._terminal = terminal

  def isatty(self):
    return self._terminal


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_shown_on_a_terminal_only(monkeypatch, terminal):
  screen = Screen(terminal)
  monkeypatch.setattr(sys, "stderr", screen)
  assert list(console.show_progress(range(3), 3, "windows")) == [0, 1, 2]
  assert ("windows" in screen.getvalue()) == terminal


def test_a_log_gets_a_line_a_minute(monkeypatch, capsys):
  monkeypatch.setattr(sys, "stderr", Screen(False))
  clock = iter([0, 0, 25, 50, 75, 100, 125, 150])
  monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(clock)))
  assert list(console.show_progress(range(7), 7, "windows")) == [*range(7)]
  assert capsys.readouterr().out == ("windows: 3 of 7, 1m40s left\nwindows: 6 of 7, 25s left\n")


def _watch(monkeypatch, screen, counts, last):
  monkeypatch.setattr("sys.stderr", screen)
  monkeypatch.setattr(console, "_LINE_EVERY_S", 0.01)
  monkeypatch.setattr(console, "_BAR_EVERY_S", 0.01)
  counts = iter(counts)
  with console.watch_progress("set/native", 8, lambda: next(counts, 6)):
    deadline = time.monotonic() + 60
    while last not in screen.getvalue() and time.monotonic() < deadline:
      time.sleep(0.01)
  return screen.getvalue()


def test_a_log_gets_lines_with_cases_and_time(monkeypatch):
  text = _watch(monkeypatch, Screen(False), [0, 4], "6 of 8")
  lines = text.splitlines()
  assert lines[0] == "set/native: 0 of 8 cases"
  assert lines[1] == "set/native: 4 of 8 cases, 0s left"
  assert lines[2].startswith("set/native: 6 of 8 cases")


@pytest.mark.parametrize(
  ("seconds", "done", "total", "left"),
  [
    (10, 0, 100, ""),
    (60, 10, 30, "2m00s"),
    (3600, 1, 3, "2h00m"),
    (60, 5, 5, "0s"),
    (600, 2, 8, "30m00s"),
  ],
)
def test_the_time_left_is_that_of_the_cases_left(seconds, done, total, left):
  assert console.estimate_time_left(seconds, done, total) == left


def test_durations_are_readable():
  assert [console.format_duration(s) for s in (5.4, 75.2, 3725)] == ["5s", "1m15s", "1h02m"]


def test_a_terminal_gets_a_bar(monkeypatch):
  text = _watch(monkeypatch, Screen(True), [0, 4], "6/8")
  assert "set/native:  75%" in text
  assert "6/8" in text


def test_what_fails_inside_is_raised_and_ends_the_display():
  with pytest.raises(ZeroDivisionError), console.watch_progress("a", 1, lambda: 0):
    _ = 1 // 0


def test_what_a_terminal_would_obey_is_written_out(capsys):
  r"""In a name: \e[2J clears the screen, \x9b does the same, U+202E turns the text around."""
  console.print_line("a\x1b[2Jb\x9b1m\u202ec\rd\x07: 0.8 ± 0.1 ml, Größe")
  assert capsys.readouterr().out == ("a\\x1b[2Jb\\x9b1m\\u202ec\\rd\\x07: 0.8 ± 0.1 ml, Größe\n")
