"""Finds out how much memory this process may use, in a container or a job too."""

from collections.abc import Iterator
from pathlib import Path

import psutil

from attn_unet_jax.runtime.errors import UserError

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def host_bytes() -> int:
  """Returns the machine's memory in bytes, or the narrowest limit that this process is under."""
  return min([int(psutil.virtual_memory().total), *(limit for limit, _ in _container_limits())])


def free_bytes() -> int:
  """Returns the memory in bytes that this process could still take without another giving way.

  What only caches files counts as free.
  """
  rooms = (limit - _measure_use(group) for limit, group in _container_limits())
  return max(0, min([int(psutil.virtual_memory().available), *rooms]))


def require_memory(needed: int, what: str, remedy: str) -> None:
  """Refuses what memory cannot hold, before it is allocated.

  Linux promises more memory than there is, and later ends the process that uses it without a word.

  Args:
    needed: the least number of bytes.
    what: what takes them, in the plural and with its file, for the message.
    remedy: the way out, for the message.

  Raises:
    UserError: this process may not use so many, or they are not free.
  """
  available = min(host_bytes(), free_bytes())
  if needed > available:
    raise UserError(
      f"{what} take {needed / 2**30:.3g} GiB, and the memory has {available / 2**30:.3g} free; "
      f"{remedy}"
    )


def _container_limits() -> Iterator[tuple[int, Path]]:
  """Yields the limit in bytes, and the folder, of each control group that this process is in."""
  # A line of the list is `0::PATH` (version 2) or `N:CONTROLLERS:PATH` (version 1). A group's limit
  # holds for the groups in it, and the narrowest one may be anywhere: Slurm limits a job's group,
  # which lies below that of the container.
  listed = _OWN_CGROUPS.read_text().splitlines() if _OWN_CGROUPS.is_file() else []
  for line in listed:
    _, names, path = line.split(":", 2)
    if names and "memory" not in names.split(","):
      continue
    root, limit = (
      (_CGROUPS / "memory", "memory.limit_in_bytes") if names else (_CGROUPS, "memory.max")
    )
    group = root / path.lstrip("/")
    for place in (group, *group.parents):
      # Without a limit the file says `max`.
      file = place / limit
      if file.is_file() and (text := file.read_text().strip()).isdigit():
        yield int(text), place


def _measure_use(group: Path) -> int:
  """Returns the bytes that the processes of a control group hold, without cached files."""
  used = 0
  for name in ("memory.current", "memory.usage_in_bytes"):  # version 2, version 1
    if (group / name).is_file():
      used = int((group / name).read_text())
  cached = 0
  if (group / "memory.stat").is_file():
    stat = dict(line.split(maxsplit=1) for line in (group / "memory.stat").read_text().splitlines())
    # Version 1 has a `total_` for the groups below; its other lines are of the group alone.
    cached = sum(
      int(stat.get(f"total_{name}", stat.get(name, 0))) for name in ("inactive_file", "active_file")
    )
  return max(0, used - cached)
