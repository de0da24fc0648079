"""The streaming source: threads read cases and cut patches on the host, ahead of the step.

For sets that do not fit beside the network in device memory. What crosses to the device are the
blocks that augmentation samples from (int16 and uint8) with their keys. There is no state to keep:
what a step is fed depends on its number alone, so a run goes on anywhere.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager

import grain

from attn_unet_jax.patches.batch import StreamedBatch
from attn_unet_jax.patches.device_source import SourceBlock
from attn_unet_jax.patches.host_cropper import HostCropper, stack_blocks
from attn_unet_jax.runtime.cores import count_usable_cores

_AHEAD = 2  # steps whose blocks are on the device, or on their way, beside the one under way


class StreamingSource:
  """Feeds the steps their blocks.

  Args:
    cutter: cuts the patches.
    rows: which places of the global batch this host makes, in the order that `put` takes.
    put: the number of a step and this host's part of its batch, NumPy `[len(rows), ...]`, onto
      this host's devices.
  """

  def __init__(
    self, cutter: HostCropper, rows: Sequence[int], put: Callable[[int, SourceBlock], StreamedBatch]
  ):
    self._cutter, self._rows, self._put = cutter, rows, put

  @contextmanager
  def feeds(self, steps: range) -> Iterator[Iterator[StreamedBatch]]:
    """What these steps are fed, one after the other; threads work on it until this is left.

    Then they finish the patches that they are at, which may be waiting for a scan to be prepared.
    """
    count, left = len(self._rows), threading.Event()

    def patch(place: int) -> tuple[int, SourceBlock]:
      if left.is_set():  # else the whole batch would be waited for
        raise CancelledError
      step, row = steps[place // count], self._rows[place % count]
      return step, self._cutter(step, row)

    def fed(patches: Sequence[tuple[int, SourceBlock]]) -> StreamedBatch:
      return self._put(patches[0][0], stack_blocks([block for _, block in patches]))

    cores = count_usable_cores()
    threads = grain.ReadOptions(cores, max(cores, _AHEAD * count))
    self._cutter.at_once(threads.prefetch_buffer_size, count)
    patches = grain.MapDataset.range(len(steps) * count).map(patch).to_iter_dataset(threads)
    batches = patches.batch(count, batch_fn=fed)
    ahead = iter(grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=_AHEAD))
    ahead.start_prefetch()  # not in the first `next`, which a signal may break off
    try:
      yield ahead
    finally:
      left.set()
      ahead.close()
