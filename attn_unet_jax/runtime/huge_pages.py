"""Asks Linux for memory in pages of 2 MiB, where it gives them to programs that ask."""

import os
import sys
from pathlib import Path

_TUNABLE = "glibc.malloc.hugetlb=1"  # 1: malloc asks by MADV_HUGEPAGE
_FIRST_GLIBC = (2, 35)  # the first release with that tunable
_KERNEL_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def enable_huge_pages() -> None:
  """Restarts the process with memory in large pages, if that makes a difference.

  A step on a CPU allocates gigabytes and frees them, and the system clears them for every step. In
  pages of 4 KiB that takes up to as long as the step itself. Nothing happens if the environment
  already sets an option of malloc.
  """
  # glibc reads its settings when a process starts, hence the second start. It costs little as long
  # as nothing has been imported. The variable that it sets keeps it from starting a third time.
  is_configured = any(name.startswith(("GLIBC_TUNABLES", "MALLOC_")) for name in os.environ)
  if is_configured or not _can_use_huge_pages():
    return
  os.environ["GLIBC_TUNABLES"] = _TUNABLE
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _can_use_huge_pages() -> bool:
  # With [always] every program has large pages already, with [never] none gets them.
  try:
    version = (os.confstr("CS_GNU_LIBC_VERSION") or "").removeprefix("glibc ").split(".")
    return tuple(map(int, version)) >= _FIRST_GLIBC and "[madvise]" in _KERNEL_SETTING.read_text()
  except (OSError, ValueError):  # not Linux, or not glibc
    return False
