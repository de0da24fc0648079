"""Windows of steps that are timed, what they are fed, and the ratio of paired times."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.patches.batch import StepInput, StreamedBatch
from attn_unet_jax.training.compile import Step
from attn_unet_jax.training.inputs import open_inputs
from attn_unet_jax.training.state import TrainState

READY = (os.cpu_count() or 1) + 4  # steps, more than a source can have ready


def window(pair: int, steps: int) -> range:
  """The steps that a source is asked for: untimed, timed, and those it works on meanwhile."""
  begin = pair * (READY + steps)
  return range(begin, begin + steps + 2 * READY)


def one_batch(config: RunConfig, module: nn.Module) -> StreamedBatch:
  """What a streaming source feeds the first step, on the device for good.

  Its scans are kept in `data.prepared`, which must name a folder.
  """
  streaming = replace_keys(config, {"data.source": "streaming"})
  load = open_fold(streaming.data).load
  inputs = open_inputs(streaming, module, load, Path(config.data.prepared))
  with inputs.source.feeds(range(1)) as feeds:
    return jax.block_until_ready(next(feeds))


def seconds(
  step: Step, state: TrainState, feeds: Iterator[StepInput], untimed: int, timed: int
) -> float:
  """A step's share of a window's time, after the untimed steps."""
  return time_steps(step, state, feeds, untimed, timed)[0]


def time_steps(
  step: Step, state: TrainState, feeds: Iterator[StepInput], untimed: int, timed: int
) -> tuple[float, TrainState]:
  """The same, and the state after all steps."""
  for _ in range(untimed):
    state, _ = step(state, next(feeds))
  jax.block_until_ready(state)
  began = time.perf_counter()
  for _ in range(timed):
    state, outcome = step(state, next(feeds))
  jax.block_until_ready((state, outcome))
  return (time.perf_counter() - began) / timed, state


def ratio(ratios: np.ndarray) -> dict[str, Any]:
  """The median, and the interval in which 95 % of the medians of resamples lie."""
  draws = np.random.default_rng(0).choice(ratios, (10000, len(ratios)))
  low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
  return {
    "ratio": round(float(np.median(ratios)), 4),
    "ratio_95": [round(float(low), 4), round(float(high), 4)],
  }
