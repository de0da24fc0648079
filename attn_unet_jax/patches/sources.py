"""Where the patches of a training come from: out of device memory, or streamed; decided here."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import repeat
from typing import Protocol

import jax

from attn_unet_jax.cases.working_cases import WorkingCases
from attn_unet_jax.patches.batch import StepInput
from attn_unet_jax.patches.device_source import ResidentSet
from attn_unet_jax.patches.options import PatchOptions
from attn_unet_jax.runtime.memory import host_bytes

_SHARE = 0.25  # of the memory that a resident set may take; the network needs most of it


class PatchSource(Protocol):
  """Feeds the compiled step."""

  def feeds(self, steps: range) -> AbstractContextManager[Iterator[StepInput]]:
    """What these steps are fed, one after the other."""


class ResidentSource:
  """The resident source: every step is fed the whole set, which lies on the devices."""

  def __init__(self, data: ResidentSet):
    self._data = data

  @contextmanager
  def feeds(self, steps: range) -> Iterator[Iterator[StepInput]]:
    """The set, as often as there are steps."""
    yield repeat(self._data, len(steps))


def choose_source(data: PatchOptions, cases: WorkingCases) -> tuple[str, str]:
  """Which source trains on these cases, 'resident' or 'streaming', and a line that says why.

  `auto` measures the set on the working grid, from headers, and takes the resident source where
  it needs at most a quarter of the device's memory (of the host's, where the device is the CPU).
  """
  asked = data.source
  if asked != "auto":
    return asked, f"source of patches: {asked}, as configured"
  needed, (memory, whose) = cases.bytes_together(), _available_memory()
  chosen = "resident" if needed <= _SHARE * memory else "streaming"
  gib = f"{needed / 2**30:.2f} GiB, a quarter of the {whose}'s memory is {memory / 4 / 2**30:.2f}"
  return chosen, f"source of patches: {chosen} (the training set takes {gib} GiB)"


def _available_memory() -> tuple[int, str]:
  """Bytes that there are for data and training, and whose they are."""
  device = jax.local_devices()[0]
  stats = device.memory_stats()
  if stats and "bytes_limit" in stats:
    return stats["bytes_limit"], "device"
  return host_bytes() // jax.local_device_count(), "host"  # each simulated device has a copy
