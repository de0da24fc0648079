"""A whole set in device memory, whose patches are cropped inside the compiled step."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.patches.padded_case import PaddedCase, Shape, pad_case
from attn_unet_jax.patches.schedule import BatchSample, patch_origin_and_key

Array = jax.Array


class ResidentSet(struct.PyTreeNode):
  """A set of cases as arrays `[C, ...]` over cases, padded to the largest extents.

  `image` is int16 HU `[C, X, Y, Z]`, `label` uint8 class indices, `size` `[C, 3]` the real extents,
  `mean` and `sd` `[C]` of the whole scan in HU, `positions` `[C, K, 3]` foreground voxels of which
  the first `count[c]` are real; `quantiles` float32 HU `[C, Q]` of the scans, where histograms are
  matched. `is_map` `[C]` says which images are materials to paint on, where others are HU. The last
  `also` cases are those of a second data set.
  """

  image: Array
  label: Array
  size: Array
  mean: Array
  sd: Array
  positions: Array
  count: Array
  quantiles: Array | None = None
  is_map: Array | None = None
  also: int = struct.field(pytree_node=False, default=0)


class HistogramSource(NamedTuple):
  """The data for matching a patch's histogram: of its own scan and of another one.

  `own` and `quantiles` are the quantiles of the patch's scan and of the other scan, `[Q]` float32
  HU at even levels; `mean` and `sd` are those of the other scan.
  """

  own: Any
  quantiles: Any
  mean: Any
  sd: Any


class SourceBlock(NamedTuple):
  """The crop for one patch: HU `[SX, SY, SZ]` int16, classes uint8, the scan's mean and sd.

  `key` is the data of the key for its augmentation, uint32. `reference` is None unless histograms
  are matched. `is_map` says whether the image is of materials to paint on; None: all patches are of
  one kind. The arrays are JAX's, or NumPy's if the host crops.
  """

  image: Any
  label: Any
  mean: Any
  sd: Any
  key: Any
  reference: HistogramSource | None = None
  is_map: Any = None


def make_resident(
  cases: Iterable[WorkingCase], patch: Shape, *, histograms: bool = False, also: int = 0
) -> ResidentSet:
  """Puts a set into device memory; scans smaller than the patch are padded by `pad_case`.

  The last `also` cases are those of a second data set.
  """
  held = [pad_case(case, patch, histogram=histograms) for case in cases]
  size = np.array([case.image.shape for case in held], np.int32)
  arrays = {
    "image": _stack_cases([case.image for case in held], size.max(0)),
    "label": _stack_cases([case.label for case in held], size.max(0)),
    "size": size,
    "mean": np.array([case.mean for case in held], np.float32),
    "sd": np.array([case.sd for case in held], np.float32),
    "positions": np.stack([case.positions for case in held]),
    "count": np.array([case.count for case in held], np.int32),
    "is_map": _find_maps(held),
    "quantiles": np.array([case.quantiles for case in held]) if histograms else None,
  }
  return ResidentSet(**jax.device_put(arrays), also=also)


def _find_maps(cases: Sequence[PaddedCase]) -> np.ndarray | None:
  """Returns which cases hold materials, [C]; None where all or none do."""
  is_map = np.array([case.holds_materials for case in cases])
  return is_map if is_map.any() and not is_map.all() else None


def _stack_cases(arrays: Sequence[np.ndarray], extent: np.ndarray) -> np.ndarray:
  """Stacks arrays, padded with zeros to one extent, as a type that holds all of them."""
  # No patch contains these zeros: coordinates are clamped to the extent of the scan.
  stack = np.zeros((len(arrays), *extent), np.result_type(*{array.dtype for array in arrays}))
  for held, array in zip(stack, arrays, strict=True):
    held[tuple(map(slice, array.shape))] = array
  return stack


def crop_patches(
  data: ResidentSet, draw: BatchSample, patch: Shape, block: Shape, shares: int = 1
) -> SourceBlock:
  """Crops the blocks of a batch, each with a leading batch axis.

  Args:
    data: the set.
    draw: the batch, from `schedule`.
    patch: extent of the patches for which corners are drawn.
    block: extent to crop, with the patch in its centre; beyond the scan its border is repeated.
    shares: equal parts of the batch that are cropped side by side, each on a device.
  """

  def crop_one(draw: BatchSample) -> SourceBlock:
    """Crops the block of one patch."""
    case, size = draw.case, data.size[draw.case]
    positions, count = data.positions[case], data.count[case]
    low, key = patch_origin_and_key(draw.key, draw.foreground, size, positions, count, patch, block)
    image, label = (
      _clamp_corner(array, case, low, size, block) for array in (data.image, data.label)
    )
    reference = _histogram_source(data, draw)
    is_map = None if data.is_map is None else data.is_map[case]
    return SourceBlock(image, label, data.mean[case], data.sd[case], key, reference, is_map)

  parts = jax.tree.map(lambda x: x.reshape(shares, -1, *x.shape[1:]), draw)
  # A loop over the patches of a share: without it XLA fuses the crop into the sampling that
  # follows, and crops every voxel once for each of its eight neighbours.
  blocks = jax.vmap(lambda part: jax.lax.map(crop_one, part))(parts)
  result: SourceBlock = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), blocks)
  return result


def _histogram_source(data: ResidentSet, draw: BatchSample) -> HistogramSource | None:
  if draw.reference is None:
    return None
  assert data.quantiles is not None
  other = draw.reference
  return HistogramSource(
    data.quantiles[draw.case], data.quantiles[other], data.mean[other], data.sd[other]
  )


def _clamp_corner(array: Array, case: Array, low: Array, size: Array, block: Shape) -> Array:
  """Returns `array[case]` at `low` + 0 .. block, with coordinates clamped to the scan."""
  extent = array.shape[1:]
  region = tuple(min(b, n) for b, n in zip(block, extent, strict=True))
  start = jnp.clip(low, 0, jnp.asarray(extent) - jnp.asarray(region))
  # One slice of at most the block's size first, so that the gathers below read no more than that.
  out = jax.lax.dynamic_slice(array, (case, *start), (1, *region))[0]
  for axis in range(3):
    wanted = jnp.clip(low[axis] + jnp.arange(block[axis]), 0, size[axis] - 1) - start[axis]
    out = jnp.take(out, wanted, axis=axis, mode="clip")
  return out
