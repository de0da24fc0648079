"""`predict` with its stages watched: seconds, and the greatest memory of the process within each.

  python -m benchmarks.traced_stages FLAGS OF PREDICT

prints, at last, a marked line of JSON. Linux forgets the greatest memory when it is asked to.
"""

import functools
import importlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.page import table
from benchmarks.peers.turns import read_peak

Stages = dict[str, dict[str, float]]

# What does a stage, by the module in which it is looked up.
STAGES = {
  "open the run": ("attn_unet_jax.workflows.segment_scans", "open_work"),
  "read the file": ("attn_unet_jax.volumes.scan", "FoundScan.read"),
  "judge the scan": ("attn_unet_jax.volumes.judge", "Judge.judge_scan"),
  "to the working grid": ("attn_unet_jax.inference.segment", "working_image"),
  "the network": ("attn_unet_jax.inference.segment", "predict_within"),
  "the mask on the scan's grid": ("attn_unet_jax.workflows.answer_scan", "make_mask"),
  "write the mask": ("attn_unet_jax.workflows.answer_scan", "write_answer"),
}
TOTAL = "from start to end"
MARK = "@stages "
_CLEAR_PEAK = Path("/proc/self/clear_refs")


def summarise_starts(
  found: dict[str, list[dict[str, Any]]],
) -> Iterator[tuple[str, Stages]]:
  """Yields the least seconds and the greatest memory of each stage, for each way that was."""
  for name, starts in found.items():
    if starts:
      # The least: what other programs on the machine add is never below zero.
      yield (
        name,
        {
          stage: {
            "seconds": round(min(one[stage]["seconds"] for one in starts), 2),
            "peak_gib": round(max(one[stage]["peak_gib"] for one in starts), 2),
          }
          for stage in starts[0]
        },
      )


def write_table(ways: dict[str, Stages]) -> str:
  """Writes a row for each stage, and seconds and GiB for each way."""
  stages = [*STAGES, TOTAL]
  cells = {
    (name, stage): f"{one[stage]['seconds']:.1f} s, {one[stage]['peak_gib']:.2f} GiB"
    for name, one in ways.items()
    for stage in one
  }
  rows = [[stage, *(cells.get((name, stage), "") for name in ways)] for stage in stages]
  return table(["stage", *ways], rows)


@contextmanager
def watch_stage(stage: str, stages: Stages) -> Iterator[None]:
  """Adds the seconds of a block to its stage, and the greatest memory of the process in it."""
  _CLEAR_PEAK.write_text("5", encoding="ascii")
  start = time.perf_counter()
  yield
  one = stages.setdefault(stage, {"seconds": 0.0, "peak_gib": 0.0})
  one["seconds"] += time.perf_counter() - start
  one["peak_gib"] = max(one["peak_gib"], read_peak())


def watch_function(stage: str, module: str, name: str, stages: Stages) -> None:
  """Has a function watched, where a module looks it up."""
  *owners, last = name.split(".")
  owner: Any = importlib.import_module(module)
  for one in owners:
    owner = getattr(owner, one)
  function: Callable[..., Any] = getattr(owner, last)

  @functools.wraps(function)
  def watched(*arguments: Any, **named: Any) -> Any:
    with watch_stage(stage, stages):
      return function(*arguments, **named)

  setattr(owner, last, watched)


def run_watched() -> None:
  """Runs `predict` with its functions wrapped, and prints what the stages took."""
  stages: Stages = {}
  for stage, (module, name) in STAGES.items():
    watch_function(stage, module, name, stages)
  from attn_unet_jax import predict

  try:
    predict.run()
  finally:
    print(f"\n{MARK}{json.dumps(stages)}", flush=True)


if __name__ == "__main__":
  run_watched()
