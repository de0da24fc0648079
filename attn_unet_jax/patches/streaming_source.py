"""The streaming source: threads read cases and crop patches on the host, ahead of the step.

It serves sets that do not fit into device memory beside the network. The blocks that augmentation
samples from (int16 and uint8) and their keys are copied to the device. There is no state to save:
the input of a step depends on its number alone, so that a run can resume at any step.
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

# Steps whose blocks are on the device, or on their way to it, beside the current one.
_AHEAD = 2


class StreamingSource:
  """A source that crops the blocks of each step on the host.

  Args:
    cutter: crops the patches.
    rows: the places of the global batch that this host makes, in the order that `put` expects.
    put: copies a step's number and this host's part of its batch, NumPy `[len(rows), ...]`, to this
      host's devices.
  """

  def __init__(
    self, cutter: HostCropper, rows: Sequence[int], put: Callable[[int, SourceBlock], StreamedBatch]
  ):
    self._cutter, self._rows, self._put = cutter, rows, put

  @contextmanager
  def feeds(self, steps: range) -> Iterator[Iterator[StreamedBatch]]:
    """Yields an iterator over the inputs of these steps, which threads prepare in advance.

    On exit, threads finish the patch in progress (which may include preparing its scan).
    """
    count, left = len(self._rows), threading.Event()

    def crop_one(place: int) -> tuple[int, SourceBlock]:
      """Crops a patch by its place in the sequence, in a thread."""
      if left.is_set():  # otherwise leaving would wait for the whole batch
        raise CancelledError
      step, row = steps[place // count], self._rows[place % count]
      return step, self._cutter(step, row)

    def put_batch(patches: Sequence[tuple[int, SourceBlock]]) -> StreamedBatch:
      """Joins the patches of a step, and puts them onto the devices."""
      return self._put(patches[0][0], stack_blocks([block for _, block in patches]))

    cores = count_usable_cores()
    threads = grain.ReadOptions(cores, max(cores, _AHEAD * count))
    self._cutter.reserve_cache(threads.prefetch_buffer_size, count)
    patches = grain.MapDataset.range(len(steps) * count).map(crop_one).to_iter_dataset(threads)
    batches = patches.batch(count, batch_fn=put_batch)
    ahead = iter(grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=_AHEAD))
    ahead.start_prefetch()  # not in the first `next`, which a signal may interrupt
    try:
      yield ahead
    finally:
      left.set()
      ahead.close()
