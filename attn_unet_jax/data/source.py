"""Where the patches of a training come from: out of device memory, or streamed; decided here."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import repeat
from pathlib import Path
from typing import Protocol

import jax
import psutil
from ml_collections import ConfigDict

from attn_unet_jax.data.cases import Cases
from attn_unet_jax.data.patches import Feed
from attn_unet_jax.data.resident import Resident

_SHARE = 0.25  # of the memory that a resident set may take; the network needs most of it
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


class Source(Protocol):
  """Feeds the compiled step."""

  def feeds(self, steps: range) -> AbstractContextManager[Iterator[Feed]]:
    """What these steps are fed, one after the other."""


class Held:
  """The resident source: every step is fed the whole set, which lies on the devices."""

  def __init__(self, data: Resident):
    self._data = data

  @contextmanager
  def feeds(self, steps: range) -> Iterator[Iterator[Feed]]:
    """The set, as often as there are steps."""
    yield repeat(self._data, len(steps))


def choose(config: ConfigDict, cases: Cases) -> tuple[str, str]:
  """Which source trains on these cases, 'resident' or 'streaming', and a line that says why.

  `auto` measures the set on the working grid, from headers, and takes the resident source where
  it needs at most a quarter of the device's memory (of the host's, where the device is the CPU).
  """
  asked = config.data.source
  if asked != "auto":
    return asked, f"source of patches: {asked}, as configured"
  needed, (memory, whose) = cases.bytes_together(), _memory()
  chosen = "resident" if needed <= _SHARE * memory else "streaming"
  gib = f"{needed / 2**30:.2f} GiB, a quarter of the {whose}'s memory is {memory / 4 / 2**30:.2f}"
  return chosen, f"source of patches: {chosen} (the training set takes {gib} GiB)"


def _memory() -> tuple[int, str]:
  """Bytes that there are for data and training, and whose they are."""
  device = jax.local_devices()[0]
  stats = device.memory_stats()
  if stats and "bytes_limit" in stats:
    return stats["bytes_limit"], "device"
  host = min([psutil.virtual_memory().total, *_container()])
  return host // jax.local_device_count(), "host"  # each simulated device has a copy


def _container() -> Iterator[int]:
  """The memory that a container or a job may use, of each of its control groups that has a limit.

  A line of the system's list is `0::PATH` (version 2) or, of version 1, `N:memory:PATH`; Slurm
  limits a group below the container's own, and what holds for a group holds for those in it.
  """
  listed = _OWN_CGROUPS.read_text().splitlines() if _OWN_CGROUPS.is_file() else []
  for line in listed:
    _, names, path = line.split(":", 2)
    if names and "memory" not in names.split(","):
      continue
    root, limit = (
      (_CGROUPS / "memory", "memory.limit_in_bytes") if names else (_CGROUPS, "memory.max")
    )
    group = root / path.lstrip("/")
    for file in (place / limit for place in (group, *group.parents)):
      if file.is_file() and (text := file.read_text().strip()).isdigit():
        yield int(text)
