import io
import time

import pytest

from tfds_pancreas import progress


class Terminal(io.StringIO):
  def isatty(self):
    return True


@pytest.mark.parametrize(
  ("seconds", "done", "total", "left"),
  [
    (10, 0, 100, ""),
    (60, 10, 30, "2 min"),
    (3600, 1, 3, "2.0 h"),
    (60, 5, 5, "0 min"),
    (60, 1, 90, "89 min"),
  ],
)
def test_the_time_left_is_that_of_the_cases_left(seconds, done, total, left):
  assert progress.time_left(seconds, done, total) == left


def _shown(monkeypatch, stream, counts, last):
  monkeypatch.setattr("sys.stderr", stream)
  monkeypatch.setattr(progress, "_LOG_S", 0.01)
  monkeypatch.setattr(progress, "_TERMINAL_S", 0.01)
  counts = iter(counts)
  with progress.shown("set/native", 8, lambda: next(counts, 6)):
    deadline = time.monotonic() + 60
    while last not in stream.getvalue() and time.monotonic() < deadline:
      time.sleep(0.01)
  return stream.getvalue()


def test_a_log_gets_lines_with_cases_and_time(monkeypatch):
  text = _shown(monkeypatch, io.StringIO(), [0, 4], "6 of 8")
  lines = text.splitlines()
  assert lines[0] == "set/native: 0 of 8 cases"
  assert lines[1] == "set/native: 4 of 8 cases, 0 min left"
  assert lines[2].startswith("set/native: 6 of 8 cases")


def test_a_terminal_gets_a_bar(monkeypatch):
  text = _shown(monkeypatch, Terminal(), [0, 4], "6/8")
  assert "set/native:  75%" in text
  assert "6/8" in text


def test_what_fails_inside_is_raised_and_ends_the_display():
  with pytest.raises(ZeroDivisionError), progress.shown("a", 1, lambda: 0):
    _ = 1 // 0
