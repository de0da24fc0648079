"""Whether training steps repeat their bits, and at what cost."""

import hashlib
import itertools
import statistics
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.patches.batch import StreamedBatch
from attn_unet_jax.training.compile import compile_step
from attn_unet_jax.training.mesh import replicate
from attn_unet_jax.training.state import create_state
from benchmarks.windows import one_batch, time_steps


class Repeat(NamedTuple):
  """What one process measured.

  Attributes:
    step_s: seconds a step.
    digest: of all parameters after the last step.
  """

  step_s: float
  digest: str


def repeat(config: RunConfig, module: nn.Module, untimed: int, timed: int) -> Repeat:
  """Trains from the config's start on one batch, augmented anew by each step."""
  step = compile_step(config, module, streamed=True)
  state = replicate(config, create_state(config, module))
  feeds = count_feeds(one_batch(config, module))
  step_s, state = time_steps(step, state, feeds, untimed, timed)
  return Repeat(step_s, digest(state.params))


def count_feeds(fed: StreamedBatch) -> Iterator[StreamedBatch]:
  """The batch for every step from 0: a step takes nothing that was fed for another."""
  for number in itertools.count():
    yield fed._replace(step=jax.device_put(np.int32(number), fed.step.sharding))


def digest(tree: Any) -> str:
  """Of the bits of all arrays, and of their types, shapes and order."""
  made = hashlib.blake2b(digest_size=16)
  for leaf in map(np.asarray, jax.tree.leaves(jax.device_get(tree))):
    made.update(f"{leaf.dtype} {leaf.shape} ".encode())
    made.update(leaf.tobytes())
  return made.hexdigest()


def cost(usual: Sequence[Repeat], deterministic: Sequence[Repeat]) -> dict[str, Any]:
  """Seconds of both kinds of process, the ratios of those that ran in turn, who repeated its bits.

  `same_parameters` is None of a single process.
  """
  pairs = zip(usual, deterministic, strict=True)
  ratios = [slow.step_s / fast.step_s for fast, slow in pairs]
  return {
    "usual": _told(usual),
    "deterministic": _told(deterministic),
    "ratio": round(statistics.median(ratios), 4),
    "ratio_min": round(min(ratios), 4),
    "ratio_max": round(max(ratios), 4),
  }


def _told(found: Sequence[Repeat]) -> dict[str, Any]:
  digests = [one.digest for one in found]
  return {
    "median_step_s": float(f"{statistics.median(one.step_s for one in found):.4g}"),
    "step_s": [float(f"{one.step_s:.4g}") for one in found],
    "parameters": digests,
    "same_parameters": len(set(digests)) == 1 if len(digests) > 1 else None,
  }
