"""Processes that do one work in turn, so that a busy machine slows them alike."""

import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from attn_unet_jax.runtime.console import print_line
from benchmarks.contenders import digits
from benchmarks.peers.contenders import Contender

MARK = "@peer "  # a worker's answers, among what its libraries print
MARK_STEP = "@step "  # the seconds of a step, among them


class ProcessFailedError(Exception):
  """A worker that ended without an answer; says why."""


class FinishedProcess(NamedTuple):
  """A process that did its whole work: seconds on the wall, its peak of memory, what it printed."""

  seconds: float
  peak_gib: float
  output: str


@dataclass
class Worker:
  """A process that has a contender's work ready, and does it when asked.

  Attributes:
    process: it.
    about: what it said of itself: versions and threads.
    seconds: of each timed call.
    error: why it does no more; '' while it does.
  """

  process: subprocess.Popen[str]
  about: dict[str, Any] = field(default_factory=dict)
  seconds: list[float] = field(default_factory=list)
  error: str = ""

  def ask(self) -> dict[str, Any]:
    """Waits for the next answer.

    Raises:
      ProcessFailedError: it has ended.
    """
    assert self.process.stdout
    said = ""
    for line in self.process.stdout:
      if line.startswith(MARK):
        answer: dict[str, Any] = json.loads(line.removeprefix(MARK))
        return answer
      said = line.strip() or said
    raise ProcessFailedError(f"status {self.process.wait()}: {said}"[:300])


def start_worker(contender: Contender, work: str, patch: int) -> Worker:
  """Starts a process that makes a contender's work ready."""
  command = [sys.executable, "-m", "benchmarks.peers.worker", work, contender.library]
  command += [contender.dtype, contender.layout or "-", str(patch)]
  # Errors go where its answers go: the last line says why a worker ended.
  process = subprocess.Popen(
    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    env=make_environment(contender.environment),
  )  # fmt: skip
  return Worker(process)


def make_environment(more: Mapping[str, str]) -> dict[str, str]:
  """Returns this process's environment with other settings of malloc, and none of its own."""
  kept = {name: value for name, value in os.environ.items() if not name.startswith("GLIBC_TUN")}
  return kept | dict(more)


def time_in_turn(contenders: Sequence[Contender], work: str, patch: int, repeats: int) -> Any:
  """Times contenders in turn; each timed call follows one of its own that is not timed.

  Args:
    contenders: the first is what ratios are against.
    work: as of `benchmarks.peers.worker`.
    patch: the edge of the cube, in voxels.
    repeats: timed calls of each.

  Returns:
    By name: median, least and greatest seconds, how many times as long as the first, the peak of
    the process in GiB, versions and threads; or the error of one that could not.
  """
  workers: dict[str, Worker] = {}
  try:
    # One after the other: two that compile at a time would take as long, and more memory.
    for contender in contenders:
      print_line(f"{work}: {contender.name} is made ready")
      worker = workers[contender.name] = start_worker(contender, work, patch)
      _exchange(worker, "")
    for _ in range(repeats):
      for worker in workers.values():
        _exchange(worker, "go")
    for worker in workers.values():
      _exchange(worker, "end")
  finally:
    for worker in workers.values():
      worker.process.kill()
      worker.process.communicate()
  base = workers[contenders[0].name].seconds
  return {name: _describe(worker, base) for name, worker in workers.items()}


def _exchange(worker: Worker, request: str) -> None:
  """Sends a request and keeps what the worker answers; without one, what it says at its start."""
  if worker.error:
    return
  assert worker.process.stdin
  try:
    if request:
      worker.process.stdin.write(f"{request}\n")
      worker.process.stdin.flush()
    answer = worker.ask()
  except (ProcessFailedError, BrokenPipeError) as error:
    worker.error = str(error)
    return
  if request == "go":
    worker.seconds.append(float(answer["seconds"]))
  else:
    worker.about |= answer


def _describe(worker: Worker, base: Sequence[float]) -> dict[str, Any]:
  if worker.error or not worker.seconds:
    return {"error": worker.error or "never asked"}
  return summarise_times(worker.seconds, base) | worker.about


def summarise_times(seconds: Sequence[float], base: Sequence[float]) -> dict[str, Any]:
  """Returns median and spread, and how many times as long as the base."""
  median = statistics.median(seconds)
  found = {
    "median_s": digits(median),
    "min_s": digits(min(seconds)),
    "max_s": digits(max(seconds)),
    "repeats": len(seconds),
  }
  return found | ({"times_ours": round(median / statistics.median(base), 2)} if base else {})


def run_process(command: Sequence[str], more: Mapping[str, str]) -> FinishedProcess:
  """Runs a process from its start to its end.

  Args:
    command: a module and its arguments, after `python -m`.
    more: what its environment has beyond the usual one.

  Raises:
    ProcessFailedError: it ended with another status than 0; says its last line.
  """
  start = time.perf_counter()
  process = subprocess.Popen(
    [sys.executable, "-m", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    env=make_environment(more),
  )  # fmt: skip
  peaks: list[float] = []
  watch = threading.Thread(target=_watch_peak, args=(process, peaks))
  watch.start()
  output, _ = process.communicate()
  seconds = time.perf_counter() - start
  watch.join()
  if process.returncode:
    lines = output.strip().splitlines() or [""]
    raise ProcessFailedError(f"status {process.returncode}: {lines[-1]}"[:300])
  return FinishedProcess(seconds, max(peaks, default=0.0), output)


def _watch_peak(process: subprocess.Popen[str], peaks: list[float]) -> None:
  while process.poll() is None:
    with contextlib.suppress(OSError, AssertionError):  # it has just ended
      peaks.append(read_peak(process.pid))
    time.sleep(0.05)


def read_peak(pid: int | str = "self") -> float:
  """Reads the greatest memory that a process has held, in GiB.

  `getrusage` would not do: what it says begins with the memory of the process that started it.
  """
  text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
  found = re.search(r"^VmHWM:\s+(\d+) kB$", text, re.MULTILINE)
  assert found
  return int(found[1]) / 2**20
