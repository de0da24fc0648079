"""What contenders do in turn: how long it takes, in how much memory, at which rate."""

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple


class Work(NamedTuple):
  """One contender's work.

  Attributes:
    call: does it, and returns when its results are there.
    memory: bytes of the device's memory that it holds at its peak, or None where nobody knows.
  """

  call: Callable[[], Any]
  memory: Callable[[], int | None]


def seconds(work: Work) -> float:
  """Wall time of one call."""
  start = time.perf_counter()
  work.call()
  return time.perf_counter() - start


def compare(works: dict[str, Work], repeats: int, tflop: float | None) -> dict[str, Any]:
  """Times every contender in turn, so that a busy machine slows them alike; ratios of medians.

  Each time after a call of its own that is not timed, as in a training: a system that gave its free
  pages to another machine meanwhile would let whoever comes after a long pause wait for them; and
  PyTorch compiles, and chooses its kernels, in its first.

  Args:
    works: by contender; ratios are against the first that does its work. One that cannot, for want
      of memory or of a compiler, has its `error` in place of figures, and the others go on.
    repeats: timed calls of each.
    tflop: operations of the work, the same for all, in 1e12; None where they were not counted.
  """
  times: dict[str, list[float]] = {name: [] for name in works}
  failed: dict[str, dict[str, Any]] = {}
  for _ in range(repeats):
    for name, work in works.items():
      if name in failed:
        continue
      try:
        work.call()
        times[name].append(seconds(work))
      except RuntimeError as error:  # as both JAX's and PyTorch's are
        failed[name] = {"error": f"{type(error).__name__}: {error}"[:500]}
  done = {name: t for name, t in times.items() if name not in failed}
  base = statistics.median(next(iter(done.values()), [0.0]))
  told = {name: _figures(t, base, works[name].memory(), tflop) for name, t in done.items()}
  return {name: failed.get(name) or told[name] for name in works}


def _figures(
  times: list[float], base: float, memory: int | None, tflop: float | None
) -> dict[str, Any]:
  median = statistics.median(times)
  return {
    "median_s": digits(median),
    "min_s": digits(min(times)),
    "max_s": digits(max(times)),
    "speed_up": round(base / median, 2),
    "memory_gib": None if memory is None else digits(memory / 2**30),
    "tflop_per_s": None if tflop is None else digits(tflop / median),
  }


def digits(value: float) -> float:
  """The value to four digits: a step takes seconds on a CPU and milliseconds on a GPU."""
  return float(f"{value:.4g}")
