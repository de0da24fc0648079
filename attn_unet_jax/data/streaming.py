"""The streaming source: threads read cases and cut patches on the host, ahead of the step.

For sets that do not fit beside the network in device memory. What crosses to the device are the
blocks that augmentation samples from (int16 and uint8) with their keys. There is no state to keep:
what a step gets depends on its number alone, so a run goes on anywhere.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import grain

from attn_unet_jax.data.cutter import Cutter, together
from attn_unet_jax.data.resident import Block

Place = Callable[[Block], Block]

_AHEAD = 2  # batches on the device beside the one that the step works on


class Streaming:
  """Batches of blocks, in the order of the steps.

  Args:
    cutter: cuts the patches.
    rows: which places of the global batch this host makes, in the order that `place` takes.
    place: puts a host's part of the batch, NumPy `[len(rows), ...]`, onto its devices.
  """

  def __init__(self, cutter: Cutter, rows: Sequence[int], place: Place):
    self._cutter, self._rows, self._place = cutter, rows, place

  @contextmanager
  def feeds(self, steps: range) -> Iterator[Iterator[Block]]:
    """The batches of these steps; threads work on them until the context is left."""
    count = len(self._rows)

    def patch(index: int) -> Block:
      return self._cutter(steps[index // count], self._rows[index % count])

    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    reading = grain.ReadOptions(threads or 1, max(threads or 1, _AHEAD * count))
    patches = grain.MapDataset.range(len(steps) * count).map(patch).to_iter_dataset(reading)
    batches = patches.batch(count, batch_fn=together).map(self._place)
    ahead = iter(grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=_AHEAD))
    try:
      yield ahead
    finally:
      ahead.close()

