"""Windows of steps in which a source's work is timed, and the ratio of paired times."""

import os
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from attn_unet_jax.data.patches import Feed
from attn_unet_jax.training.parallel import Step
from attn_unet_jax.training.state import TrainState

READY = (os.cpu_count() or 1) + 4  # steps, more than a source can have ready


def window(pair: int, steps: int) -> range:
  """The steps that a source is asked for: untimed, timed, and those it works on meanwhile."""
  begin = pair * (READY + steps)
  return range(begin, begin + steps + 2 * READY)


def seconds(
  step: Step, state: TrainState, feeds: Iterator[Feed], untimed: int, timed: int
) -> float:
  """A step's share of a window's time, after the untimed steps."""
  for _ in range(untimed):
    state, _ = step(state, next(feeds))
  jax.block_until_ready(state)
  began = time.perf_counter()
  for _ in range(timed):
    state, outcome = step(state, next(feeds))
  jax.block_until_ready((state, outcome))
  return (time.perf_counter() - began) / timed


def ratio(ratios: np.ndarray) -> dict[str, Any]:
  """The median, and the interval in which 95 % of the medians of resamples lie."""
  draws = np.random.default_rng(0).choice(ratios, (10000, len(ratios)))
  low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
  return {
    "ratio": round(float(np.median(ratios)), 4),
    "ratio_95": [round(float(low), 4), round(float(high), 4)],
  }
