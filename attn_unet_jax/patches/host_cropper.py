"""Cuts on the host what the schedule names: the resident source's patches, bit for bit."""

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
from attn_unet_jax.patches.schedule import BatchSample, SchedulePlan, sample_batch, spot


class HostCropper:
  """Cuts one patch at a time; many threads may ask at once.

  Args:
    cases: read one by one, when the schedule first names them; two blocks' cases stay open, or
      those of as many blocks as `at_once` asks for.
    plan: what the schedule goes by.
    seed: of the schedule.
    patch: extent of the patches that the corners are drawn for.
    block: extent to cut, the patch in its centre; beyond the scan its border is repeated.
  """

  def __init__(
    self, cases: Sequence[WorkingCase], plan: SchedulePlan, seed: int, patch: Shape, block: Shape
  ):
    self._open = _OpenCase(lambda index: pad_case(cases[index], patch, histogram=plan.references))
    self._plan, self._patch, self._block = plan, patch, block
    self.at_once(1, plan.batch_size)
    self._draw = lru_cache(8)(_drawing(plan, seed))
    self._spot = _finding(patch, block)

  def __call__(self, step: int, row: int) -> SourceBlock:
    """The block of one patch, in NumPy: place `row` in the global batch of step `step`."""
    case, low, key, reference = self._find(step, row)[1:]
    image, label = (_crop_clamped(array, low, self._block) for array in (case.image, case.label))
    return SourceBlock(image, label, np.float32(case.mean), np.float32(case.sd), key, reference)

  def at_once(self, count: int, of_a_batch: int) -> None:
    """Keeps open what so many patches need that are cut side by side, lest a case be read twice.

    Args:
      count: of patches, those of one host one after the other.
      of_a_batch: how many of a batch's patches are that host's.
    """
    plan = self._plan
    reach = (count // of_a_batch + 1) * plan.batch_size  # of the schedule's patches
    blocks = 2 + reach // (plan.cases_per_block * plan.patches_per_case)
    self._open.capacity = blocks * plan.cases_per_block

  def corners(self, step: int) -> list[tuple[int, tuple[int, ...]]]:
    """Index of the case, and lowest voxel in it (padded to the patch), of every patch of a step."""
    around = (np.array(self._block) - self._patch) // 2
    found = (self._find(step, row) for row in range(self._plan.batch_size))
    return [(index, tuple((low + around).tolist())) for index, _, low, *_ in found]

  def _find(
    self, step: int, row: int
  ) -> tuple[int, PaddedCase, np.ndarray, np.ndarray, HistogramSource | None]:
    """Index of a patch's case, the case, where the block begins, its key, and its reference."""
    draw = self._draw(np.int32(step))
    index = int(draw.case[row])
    case = self._open[index]
    size, count = np.array(case.image.shape, np.int32), np.int32(case.count)
    low, key = self._spot(draw.key[row], draw.foreground[row], size, case.positions, count)
    reference = None
    if draw.reference is not None:
      other = self._open[int(draw.reference[row])]
      mean, sd = np.float32(other.mean), np.float32(other.sd)
      reference = HistogramSource(case.quantiles, other.quantiles, mean, sd)
    return index, case, low, key, reference


def stack_blocks(blocks: Sequence[SourceBlock]) -> SourceBlock:
  """A batch of NumPy blocks."""
  return jax.tree.map(lambda *leaves: np.stack(leaves), *blocks)


@lru_cache  # compiled once for all parts of a fold
def _drawing(plan: SchedulePlan, seed: int) -> Callable[..., Any]:
  def drawn(step: jax.Array) -> BatchSample:
    draw = sample_batch(plan, seed, step)
    return draw._replace(key=jax.random.key_data(draw.key))

  return _on_host(drawn)


@lru_cache
def _finding(patch: Shape, block: Shape) -> Callable[..., Any]:
  def found(key: jax.Array, *rest: jax.Array) -> tuple[jax.Array, jax.Array]:
    foreground, size, positions, count = rest
    wrapped = jax.random.wrap_key_data(key)
    return spot(wrapped, foreground, size, positions, count, patch, block)

  return _on_host(found)


def _on_host(function: Callable[..., Any]) -> Callable[..., Any]:
  """Compiles a small function for the CPU; NumPy in and out, every transfer explicit."""
  try:
    device = jax.local_devices(backend="cpu")[0]
  except RuntimeError:  # JAX_PLATFORMS names the accelerator alone
    device = jax.local_devices()[0]
  compiled = jax.jit(function)
  return lambda *values: jax.device_get(compiled(*jax.device_put(values, device)))


def _crop_clamped(array: np.ndarray, low: np.ndarray, block: Shape) -> np.ndarray:
  """`array` at `low` + 0 .. block, beyond its border the border itself; a copy."""
  edges = [(int(a), int(a) + b, n) for a, b, n in zip(low, block, array.shape, strict=True)]
  inside = array[tuple(slice(max(a, 0), min(b, n)) for a, b, n in edges)]
  beyond = [(max(-a, 0), max(b - n, 0)) for a, b, n in edges]
  return np.pad(inside, beyond, mode="edge") if np.any(beyond) else inside.copy()


class _OpenCase:
  """The open cases: each is read once, however many threads want it; the oldest in use goes first.

  A case that cannot be read raises for everybody who waits for it.
  """

  capacity: int

  def __init__(self, read: Callable[[int], PaddedCase]):
    self._read = read
    self._held: dict[int, Future[PaddedCase]] = {}
    self._lock = threading.Lock()

  def __getitem__(self, index: int) -> PaddedCase:
    with self._lock:
      held = self._held.pop(index, None)
      case = held or Future()
      self._held[index] = case  # last, that is, used last
      if len(self._held) > self.capacity:
        del self._held[next(iter(self._held))]
    if held is None:
      try:
        case.set_result(self._read(index))
      except BaseException as error:
        case.set_exception(error)
    return case.result()
