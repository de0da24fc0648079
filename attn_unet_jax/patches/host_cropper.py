"""Crops patches on the host: those of the resident source, bit for bit."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import lru_cache
from typing import Any

import jax
import numpy as np

from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.patches.device_source import HistogramSource, SourceBlock
from attn_unet_jax.patches.padded_case import PaddedCase, Shape, pad_case
from attn_unet_jax.patches.schedule import (
  BatchSample,
  SchedulePlan,
  patch_origin_and_key,
  sample_batch,
)


class HostCropper:
  """A cropper of single patches, which many threads may call at the same time.

  Args:
    cases: read one by one when the schedule first names them. The cases of two blocks stay open,
      or of as many blocks as `reserve_cache` asks for.
    plan: the settings of the schedule.
    seed: the seed of the schedule.
    patch: extent of the patches for which corners are drawn.
    block: extent to crop, with the patch in its centre; beyond the scan its border is repeated.
    mixed: whether some cases hold materials to paint on, and others HU.
  """

  def __init__(
    self,
    cases: Sequence[WorkingCase],
    plan: SchedulePlan,
    seed: int,
    patch: Shape,
    block: Shape,
    *,
    mixed: bool = False,
  ):
    self._mixed = mixed
    self._open = _OpenCase(lambda index: pad_case(cases[index], patch, histogram=plan.references))
    self._plan, self._patch, self._block = plan, patch, block
    self.reserve_cache(1, plan.batch_size)
    # The patches of a step are usually asked for one after the other: its sample is drawn once.
    self._draw = lru_cache(8)(_compile_sampling(plan, seed))
    self._locate = _compile_location(patch, block)

  def __call__(self, step: int, row: int) -> SourceBlock:
    """Crops the block at place `row` of the global batch of step `step`, in NumPy."""
    case, low, key, reference = self._find_block(step, row)[1:]
    image, label = (_crop_clamped(array, low, self._block) for array in (case.image, case.label))
    mean, sd, is_map = np.float32(case.mean), np.float32(case.sd), None
    if self._mixed:
      image, is_map = image.astype(np.int16), np.bool_(case.holds_materials)
    return SourceBlock(image, label, mean, sd, key, reference, is_map)

  def reserve_cache(self, num_patches: int, patches_per_batch: int) -> None:
    """Keeps enough cases open for patches that are cropped at the same time.

    Args:
      num_patches: consecutive patches of this host that are cropped at the same time.
      patches_per_batch: patches of each global batch that belong to this host.
    """
    plan = self._plan
    reach = (num_patches // patches_per_batch + 1) * plan.batch_size  # of the schedule's patches
    # With fewer open cases, a case would be closed while its patches are still asked for, and read
    # a second time. Two more blocks, since the patches may begin and end inside a block.
    blocks = 2 + reach // (plan.cases_per_block * plan.patches_per_case)
    # Two data sets have open blocks side by side.
    self._open.capacity = blocks * plan.cases_per_block * (2 if plan.also else 1)

  def patch_corners(self, step: int) -> list[tuple[int, tuple[int, ...]]]:
    """Returns for every patch of a step the index of its case and its lowest voxel in it.

    The voxel is that of the case after padding to the patch.
    """
    around = (np.array(self._block) - self._patch) // 2
    found = (self._find_block(step, row) for row in range(self._plan.batch_size))
    return [(index, tuple((low + around).tolist())) for index, _, low, *_ in found]

  def _find_block(
    self, step: int, row: int
  ) -> tuple[int, PaddedCase, np.ndarray, np.ndarray, HistogramSource | None]:
    """Returns the case's index, the case, and the block's lowest voxel, key and reference."""
    draw = self._draw(np.int32(step))
    index = int(draw.case[row])
    case = self._open[index]
    size, count = np.array(case.image.shape, np.int32), np.int32(case.count)
    low, key = self._locate(draw.key[row], draw.foreground[row], size, case.positions, count)
    reference = None
    if draw.reference is not None:
      other = self._open[int(draw.reference[row])]
      mean, sd = np.float32(other.mean), np.float32(other.sd)
      reference = HistogramSource(case.quantiles, other.quantiles, mean, sd)
    return index, case, low, key, reference


def stack_blocks(blocks: Sequence[SourceBlock]) -> SourceBlock:
  """Stacks NumPy blocks to a batch."""
  result: SourceBlock = jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)
  return result


@lru_cache  # compiled once for all parts of a fold
def _compile_sampling(plan: SchedulePlan, seed: int) -> Callable[..., Any]:
  def sample_step(step: jax.Array) -> BatchSample:
    """Draws the batch of a step, keys as their data."""
    draw = sample_batch(plan, seed, step)
    # NumPy has no typed keys, so that their data leaves the compiled function.
    return draw._replace(key=jax.random.key_data(draw.key))

  return _compile_for_host(sample_step)


@lru_cache
def _compile_location(patch: Shape, block: Shape) -> Callable[..., Any]:
  def locate_block(key: jax.Array, *rest: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns where a patch's block begins, and the key of its augmentation."""
    foreground, size, positions, count = rest
    wrapped = jax.random.wrap_key_data(key)
    return patch_origin_and_key(wrapped, foreground, size, positions, count, patch, block)

  return _compile_for_host(locate_block)


def _compile_for_host(function: Callable[..., Any]) -> Callable[..., Any]:
  """Compiles a small function for the CPU, with NumPy arrays as arguments and result."""
  # The draws are JAX's own, since NumPy's generators would give other patches than the device's.
  try:
    device = jax.local_devices(backend="cpu")[0]
  except RuntimeError:  # JAX_PLATFORMS names the accelerator alone
    device = jax.local_devices()[0]
  compiled = jax.jit(function)
  # Explicit transfers, so that this works where implicit ones are forbidden.
  return lambda *values: jax.device_get(compiled(*jax.device_put(values, device)))


def _crop_clamped(array: np.ndarray, low: np.ndarray, block: Shape) -> np.ndarray:
  """Returns a copy of `array` at `low` + 0 .. block, with the border repeated beyond it."""
  edges = [(int(a), int(a) + b, n) for a, b, n in zip(low, block, array.shape, strict=True)]
  inside = array[tuple(slice(max(a, 0), min(b, n)) for a, b, n in edges)]
  beyond = [(max(-a, 0), max(b - n, 0)) for a, b, n in edges]
  return np.pad(inside, beyond, mode="edge") if np.any(beyond) else inside.copy()


class _OpenCase:
  """The open cases, each read once for all threads; the least recently used one is closed first.

  If a case cannot be read, every thread that waits for it raises the error.
  """

  capacity: int

  def __init__(self, read: Callable[[int], PaddedCase]):
    self._read = read
    self._held: dict[int, Future[PaddedCase]] = {}
    self._lock = threading.Lock()

  def __getitem__(self, index: int) -> PaddedCase:
    # The lock covers the bookkeeping alone: reading takes long, and other threads may need a case
    # that is open. They wait for the future of a case that another thread is reading.
    with self._lock:
      held = self._held.pop(index, None)
      case = held or Future()
      self._held[index] = case  # at the end, as the most recently used one
      if len(self._held) > self.capacity:
        del self._held[next(iter(self._held))]
    if held is None:
      try:
        case.set_result(self._read(index))
      except BaseException as error:
        case.set_exception(error)
    return case.result()
