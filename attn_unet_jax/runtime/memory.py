"""How much memory this process may use: the machine's, or less in a container or a job."""

from collections.abc import Iterator
from pathlib import Path

import psutil

from attn_unet_jax.runtime.errors import UserError

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def host_bytes() -> int:
  """Bytes of the machine, or of the narrowest limit that this process is under."""
  return min([psutil.virtual_memory().total, *_container_limits()])


def require_memory(needed: int, what: str, remedy: str) -> None:
  """Refuses, before it is made, what memory cannot hold.

  Args:
    needed: bytes, at the least.
    what: takes them, for the message; with its file, in the plural.
    remedy: the way out.

  Raises:
    UserError: there are fewer.
  """
  there = host_bytes()
  if needed > there:
    raise UserError(
      f"{what} take {needed / 2**30:.3g} GiB, and the memory has {there / 2**30:.3g}; {remedy}"
    )


def _container_limits() -> Iterator[int]:
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
