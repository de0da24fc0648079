"""Prepares cases on several threads."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.runtime.cores import count_usable_cores

# Each case that is being prepared takes some ten times the bytes of its scan.
_MOST_AT_A_TIME = 4


def open_threads() -> ThreadPoolExecutor:
  """Opens a pool of threads, one for each case that is prepared at a time."""
  # Threads are enough: most of the time is spent in zlib, NumPy and SciPy, which release the
  # interpreter's lock.
  return ThreadPoolExecutor(min(_MOST_AT_A_TIME, count_usable_cores()))


def prepare_ahead(cases: Sequence[WorkingCase]) -> Iterator[WorkingCase]:
  """Yields every case in order, while threads prepare those that follow.

  What is prepared stays in memory until it is asked for.

  Raises:
    UserError: a case cannot be used; no further one is begun.
  """
  with open_threads() as threads:
    # By `map`, which keeps the order of the cases whichever thread is done first.
    yield from threads.map(cases.__getitem__, range(len(cases)))
