"""The sources of training patches, and the choice between device memory and streaming."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import repeat
from typing import Protocol

import jax

from attn_unet_jax.cases.joined_cases import CaseSequence
from attn_unet_jax.patches.batch import StepInput
from attn_unet_jax.patches.device_source import ResidentSet
from attn_unet_jax.patches.options import PatchOptions
from attn_unet_jax.runtime.memory import host_bytes

# The fraction of memory that a resident set may take, since the network needs most of it.
_SHARE = 0.25


class PatchSource(Protocol):
  """A source of the inputs of the compiled step."""

  def feeds(self, steps: range) -> AbstractContextManager[Iterator[StepInput]]:
    """Yields an iterator over the inputs of these steps."""


class ResidentSource:
  """A source that gives every step the whole set, which lies on the devices."""

  def __init__(self, data: ResidentSet):
    self._data = data

  @contextmanager
  def feeds(self, steps: range) -> Iterator[Iterator[StepInput]]:
    """Yields the set once per step."""
    # The step itself crops its patches: nothing crosses from the host to the devices.
    yield repeat(self._data, len(steps))


def choose_source(data: PatchOptions, cases: CaseSequence) -> tuple[str, str]:
  """Chooses the source, 'resident' or 'streaming', and returns it with a line that says why.

  `auto` measures the set on the working grid, from headers, and chooses the resident source if
  it needs at most a quarter of the device's memory (of the host's if the device is the CPU).
  """
  asked = data.source
  if asked != "auto":
    return asked, f"source of patches: {asked}, as configured"
  needed, (memory, whose) = cases.bytes_together(), _available_memory()
  chosen = "resident" if needed <= _SHARE * memory else "streaming"
  gib = f"{needed / 2**30:.2f} GiB, a quarter of the {whose}'s memory is {memory / 4 / 2**30:.2f}"
  return chosen, f"source of patches: {chosen} (the training set takes {gib} GiB)"


def _available_memory() -> tuple[int, str]:
  """Returns the bytes of memory for data and training, and whose they are: device or host."""
  device = jax.local_devices()[0]
  stats = device.memory_stats()
  if stats and "bytes_limit" in stats:
    return stats["bytes_limit"], "device"
  # The CPU backend reports no limit, and each simulated device has a copy of the set.
  return host_bytes() // jax.local_device_count(), "host"
