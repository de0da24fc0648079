"""What a command uses until it says something: seconds and memory."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

import psutil

from benchmarks.peers.turns import read_peak


class Usage(NamedTuple):
  """What a process has used up to a moment.

  Attributes:
    wall_s: seconds by the clock.
    cpu_s: seconds of all its threads.
    peak_gib: the greatest memory that it has held, in GiB.
  """

  wall_s: float
  cpu_s: float
  peak_gib: float


def trace_until(
  line: str | None, *command: str, environment: Mapping[str, str] | None = None
) -> Usage:
  """Starts `python -m command`; returns what it has used once it prints a line, and ends it.

  Args:
    line: how the line begins; None waits for the end of the command.
    command: a module and its arguments.
    environment: what its environment has beyond this one's.

  Raises:
    RuntimeError: it ended before, or badly; says its last line.
  """
  start = time.perf_counter()
  process = subprocess.Popen(
    [sys.executable, "-um", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    env=os.environ | dict(environment or {}),
  )  # fmt: skip
  usage, said = None, ""
  try:
    assert process.stdout
    for text in process.stdout:
      said = text.strip() or said
      # What has just ended cannot be asked any more; the line before it will do.
      with contextlib.suppress(psutil.Error, OSError, AssertionError):
        usage = _read_usage(process.pid, start)
      if line is not None and text.startswith(line) and usage:
        return usage
    # What it used to its very end is known when it is waited for, and not by its last line.
    _, status, spent = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if line is not None or process.returncode or usage is None:
      raise RuntimeError(f"{' '.join(command)}: ended with status {process.returncode}: {said}")
    wall, cpu = time.perf_counter() - start, spent.ru_utime + spent.ru_stime
    return usage._replace(wall_s=round(wall, 2), cpu_s=round(cpu, 2))
  finally:
    process.kill()
    process.communicate()


def _read_usage(pid: int, start: float) -> Usage:
  times = psutil.Process(pid).cpu_times()
  wall, cpu = time.perf_counter() - start, times.user + times.system
  return Usage(round(wall, 2), round(cpu, 2), round(read_peak(pid), 3))
