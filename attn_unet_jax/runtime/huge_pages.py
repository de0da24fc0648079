"""Pages of 2 MiB for a command's memory, where Linux gives them to who asks."""

import os
import sys
from pathlib import Path

_TUNABLE = "glibc.malloc.hugetlb=1"
_FIRST_GLIBC = (2, 35)  # the first that knows it
_KERNEL_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def enable_huge_pages() -> None:
  """Starts the process anew with memory in large pages, if that makes a difference.

  A step on a CPU allocates gigabytes and frees them, and the system clears them for every step:
  in pages of 4 KiB that takes up to as long as the step itself. glibc reads its settings when a
  process starts, hence the second start, which is to come before anything heavy has been loaded.
  Nothing happens where the environment already says something of malloc.
  """
  told = any(name.startswith(("GLIBC_TUNABLES", "MALLOC_")) for name in os.environ)
  if told or not _are_huge_pages_offered():
    return
  os.environ["GLIBC_TUNABLES"] = _TUNABLE
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _are_huge_pages_offered() -> bool:
  try:
    version = (os.confstr("CS_GNU_LIBC_VERSION") or "").removeprefix("glibc ").split(".")
    return tuple(map(int, version)) >= _FIRST_GLIBC and "[madvise]" in _KERNEL_SETTING.read_text()
  except (OSError, ValueError):  # not Linux, or not glibc
    return False
