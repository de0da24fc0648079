"""Plans the windows in which a network looks at a scan: their size and their places."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from attn_unet_jax.patches.batch import output_shape

Shape = tuple[int, int, int]

# Few sizes, since each is a program to compile: every second one of those that a network takes.
_COARSE = 2
# Arrays of 128 channels then have 2^31 elements, beyond which kernels do not count everywhere.
MOST_VOXELS = 2**24
_LEAST_GAIN = 0.1


class WindowPlan(NamedTuple):
  """The windows of a part of a scan.

  Attributes:
    window: voxels that the network sees at a time.
    inner: voxels that it answers for: the window less the network's margin on each side.
    starts: for each axis the starts of the answers, from the part's start. The last answer may
      end beyond the part.
  """

  window: Shape
  inner: Shape
  starts: tuple[list[int], list[int], list[int]]

  @property
  def windows(self) -> int:
    """The number of windows."""
    return math.prod(map(len, self.starts))

  @property
  def voxels(self) -> int:
    """The number of voxels that the network computes, in all windows together."""
    return self.windows * math.prod(self.window)

  @property
  def extent(self) -> Shape:
    """The voxels that the answers cover."""
    x, y, z = (starts[-1] + n for starts, n in zip(self.starts, self.inner, strict=True))
    return x, y, z


def plan_patches(extent: Shape, patch: Shape, margin: Shape, overlap: float) -> WindowPlan:
  """Plans windows of a given size.

  Args:
    extent: voxels of the part of the scan.
    patch: the window.
    margin: voxels by which the answer is smaller, on each side.
    overlap: of neighbouring answers at least, a fraction.
  """
  inner = output_shape(patch, margin)
  x, y, z = window_starts(extent, inner, overlap)
  return WindowPlan(patch, inner, (x, y, z))


def plan_large(
  extent: Shape,
  patch: Shape,
  margin: Shape,
  multiple: Shape,
  overlap: float,
  most_voxels: int = MOST_VOXELS,
  *,
  aligned: bool = False,
) -> WindowPlan:
  """Plans windows as large as is allowed, so that the fewest voxels are computed.

  Args:
    extent: voxels of the part of the scan.
    patch: the smallest window.
    margin: voxels by which the answer is smaller, on each side.
    multiple: the sizes that the network takes differ from the patch by multiples of it.
    overlap: of neighbouring answers at least, a fraction.
    most_voxels: of a window, unless the patch itself has more.
    aligned: whether all starts are multiples of `multiple`, without overlap beyond that, instead of
      evenly spaced.
  """
  axes = [
    _plan_axis(*axis, overlap, aligned)
    for axis in zip(extent, patch, margin, multiple, strict=True)
  ]

  def rate(plan: WindowPlan) -> tuple[int, int, int]:
    """Returns what a plan costs, to be compared with that of others."""
    size = math.prod(plan.window)
    # Of plans that compute equally much, that of the fewest windows. If none fits, the smallest.
    return (0, plan.voxels, plan.windows) if size <= most_voxels else (1, size, plan.voxels)

  plans = (
    WindowPlan((a, b, c), (i, j, k), (x, y, z))
    for (a, i, x), (b, j, y), (c, k, z) in itertools.product(*axes)
  )
  return min(plans, key=rate)


def _plan_axis(
  extent: int, patch: int, margin: int, multiple: int, overlap: float, aligned: bool
) -> list[tuple[int, int, list[int]]]:
  """Returns window, answer and starts along an axis, for each size up to one that covers it all."""
  found: list[tuple[int, int, list[int]]] = []
  for size in itertools.count(patch, _COARSE * multiple):
    inner = size - 2 * margin
    covers = inner >= extent
    # Answers smaller than the unit of their starts would leave gaps.
    if aligned and inner < multiple and not covers:
      continue
    starts = _align(extent, inner, multiple) if aligned else _spread(extent, inner, overlap)
    # A larger window of which as many are needed only computes more.
    if not found or len(starts) < len(found[-1][2]):
      found.append((size, inner, starts))
    if covers:
      break
  return found


def _align(extent: int, size: int, multiple: int) -> list[int]:
  """Returns starts at multiples of `multiple`; the last window may end beyond the extent."""
  room = math.ceil(max(0, extent - size) / multiple) * multiple
  return [*range(0, room, size // multiple * multiple or 1), room]


def _spread(extent: int, size: int, overlap: float) -> list[int]:
  """Returns evenly spaced starts, from 0 to extent - size."""
  # As few windows as reach the overlap; spreading them evenly then enlarges it a little.
  room = max(0, extent - size)
  count = math.ceil(room / max(1, size * (1 - overlap))) + 1
  return [round(i * room / max(1, count - 1)) for i in range(count)]


def window_starts(extent: Shape, window: Shape, overlap: float) -> list[list[int]]:
  """Returns the starts of windows for each axis, evenly spaced from 0 to extent - window."""
  return [_spread(n, size, overlap) for n, size in zip(extent, window, strict=True)]


def is_worthwhile(part: WindowPlan, whole: WindowPlan) -> bool:
  """Returns whether a part of a scan takes enough less than the whole one to look at it alone."""
  return part.voxels <= (1 - _LEAST_GAIN) * whole.voxels


def find_origin(part: Sequence[slice], plan: WindowPlan, shape: Shape, unit: Shape) -> Shape:
  """Returns where a plan's extent begins in a scan, so that it covers the part.

  What it covers beyond the part lies evenly on both sides, as far as the scan has room.

  Args:
    part: the part that was planned for; its starts are multiples of `unit`.
    plan: its windows.
    shape: voxels of the scan.
    unit: what the origin is a multiple of.
  """
  origin = []
  for where, length, n, step in zip(part, plan.extent, shape, unit, strict=True):
    more = (length - (where.stop - where.start)) // 2 // step * step
    first = max(0, where.start - more)
    # Rounded up: beyond the scan there are up to `unit` - 1 voxels, before it none.
    origin.append(min(first, max(0, math.ceil((n - length) / step) * step)))
  x, y, z = origin
  return x, y, z
