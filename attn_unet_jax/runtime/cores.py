"""How many processor cores this process may use."""

import os


def count_usable_cores() -> int:
  """Returns the number of cores that the system lets this process run on."""
  if hasattr(os, "sched_getaffinity"):  # less than the machine has, in a job or under taskset
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
