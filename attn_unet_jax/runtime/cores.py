"""How many processor cores this process may use."""

import os


def count_usable_cores() -> int:
  """Returns the number of cores that the system lets this process run on."""
  return len(list_usable_cores())


def list_usable_cores() -> list[int]:
  """Lists the numbers of these cores."""
  if hasattr(os, "sched_getaffinity"):  # less than the machine has, in a job or under taskset
    return sorted(os.sched_getaffinity(0))
  return list(range(os.cpu_count() or 1))
