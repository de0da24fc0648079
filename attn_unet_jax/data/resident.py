"""The resident source: a whole set in device memory, patches cut inside the compiled step."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from attn_unet_jax.data.prepare import WorkingCase
from attn_unet_jax.data.schedule import Draw, corner
from attn_unet_jax.losses import UNLABELLED

Array = jax.Array
Shape = tuple[int, int, int]

_POSITIONS = 1024  # foreground voxels kept per case: enough that no patch centre repeats often


class Resident(struct.PyTreeNode):
  """A set of cases on one array each; `[C, ...]` over cases, extents padded to the largest.

  `image` is int16 HU `[C, X, Y, Z]`, `label` uint8 class indices, `size` `[C, 3]` the real extents,
  `mean` and `sd` `[C]` of the whole scan in HU, `positions` `[C, K, 3]` foreground voxels of which
  the first `count[c]` are real.
  """

  image: Array
  label: Array
  size: Array
  mean: Array
  sd: Array
  positions: Array
  count: Array


class Block(NamedTuple):
  """What is cut for one patch: HU `[SX, SY, SZ]` int16, classes uint8, the scan's mean and sd."""

  image: Array
  label: Array
  mean: Array
  sd: Array


def resident(cases: Sequence[WorkingCase], patch: Shape) -> Resident:
  """Puts a set into device memory; scans smaller than the patch are padded with their minimum."""
  images = [_pad(case.image, patch, case.image.min()) for case in cases]
  labels = [_pad(case.label, patch, 0) for case in cases]
  extent = np.max([image.shape for image in images], axis=0)
  positions, count = zip(*[_positions(label) for label in labels], strict=True)
  arrays = {
    "image": np.stack([_grow(image, extent) for image in images]),
    "label": np.stack([_grow(label, extent) for label in labels]),
    "size": np.array([image.shape for image in images], np.int32),
    "mean": np.array([case.mean for case in cases], np.float32),
    "sd": np.array([case.sd for case in cases], np.float32),
    "positions": np.stack(positions),
    "count": np.array(count, np.int32),
  }
  return Resident(**jax.device_put(arrays))


def _pad(array: np.ndarray, patch: Shape, value: int) -> np.ndarray:
  """Centred padding up to the patch."""
  missing = [max(0, p - n) for n, p in zip(array.shape, patch, strict=True)]
  return np.pad(array, [((m + 1) // 2, m // 2) for m in missing], constant_values=value)


def _grow(array: np.ndarray, extent: np.ndarray) -> np.ndarray:
  """Zeros beyond the scan, only to give every case the same extent; no patch reads them."""
  return np.pad(array, [(0, e - n) for n, e in zip(array.shape, extent, strict=True)])


def _positions(label: np.ndarray) -> tuple[np.ndarray, int]:
  voxels = np.argwhere((label > 0) & (label != UNLABELLED)).astype(np.int32)
  kept = voxels[np.linspace(0, len(voxels) - 1, min(_POSITIONS, len(voxels))).astype(int)]
  padded = np.zeros((_POSITIONS, 3), np.int32)
  padded[: len(kept)] = kept
  return padded, len(kept)


def cut(data: Resident, draw: Draw, patch: Shape, block: Shape) -> tuple[Block, Array]:
  """Cuts the blocks of a batch, and one key a patch for its augmentation.

  Args:
    data: the set.
    draw: the batch, from `schedule`.
    patch: extent of the patches that the corners are drawn for.
    block: extent to cut, the patch in its centre; beyond the scan its border is repeated.

  Returns:
    blocks with a leading batch axis, and keys `[N]`.
  """

  def one(draw: Draw, low: Array) -> tuple[Block, Array]:
    case = draw.case
    low -= (jnp.asarray(block) - jnp.asarray(patch)) // 2
    image, label = (
      _clamped(array, case, low, data.size[case], block) for array in (data.image, data.label)
    )
    return Block(image, label, data.mean[case], data.sd[case]), jax.random.split(draw.key)[1]

  return jax.vmap(one)(draw, corners(data, draw, patch))


def corners(data: Resident, draw: Draw, patch: Shape) -> Array:
  """The lowest voxel of every patch of a batch, `[N, 3]` int32, in its (padded) case."""

  def one(draw: Draw) -> Array:
    case, key = draw.case, jax.random.split(draw.key)[0]
    positions, count = data.positions[case], data.count[case]
    return corner(key, draw.foreground, data.size[case], positions, count, patch)

  return jax.vmap(one)(draw)


def _clamped(array: Array, case: Array, low: Array, size: Array, block: Shape) -> Array:
  """`array[case]` at `low` + 0 .. block, coordinates clamped to the scan."""
  extent = array.shape[1:]
  region = tuple(min(b, n) for b, n in zip(block, extent, strict=True))
  start = jnp.clip(low, 0, jnp.asarray(extent) - jnp.asarray(region))
  out = jax.lax.dynamic_slice(array, (case, *start), (1, *region))[0]
  for axis in range(3):
    wanted = jnp.clip(low[axis] + jnp.arange(block[axis]), 0, size[axis] - 1) - start[axis]
    out = jnp.take(out, wanted, axis=axis, mode="clip")
  return out
