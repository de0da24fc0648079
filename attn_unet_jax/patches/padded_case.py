"""Prepares a case for cropping, for every source: pads it and lists its foreground voxels."""

import dataclasses

import numpy as np

from attn_unet_jax.cases.foreground import MOST
from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.volumes.intensity import measure_quantiles

Shape = tuple[int, int, int]

_QUANTILES = 256  # a table for `match_histogram`, of fixed length so that cases stack


@dataclasses.dataclass(frozen=True)
class PaddedCase:
  """A case whose HU int16 and classes uint8 `[X, Y, Z]` are at least as large as the patch.

  `mean` and `sd` are of the whole scan in HU. `positions` are foreground voxels, int32 `[K, 3]`, of
  which the first `count` are real. `quantiles` are the scan's, float32 HU at even levels, or None.
  """

  image: np.ndarray
  label: np.ndarray
  mean: float
  sd: float
  positions: np.ndarray
  count: int
  quantiles: np.ndarray | None = None

  @property
  def holds_materials(self) -> bool:
    """Whether the image is of materials, uint8, that are painted on."""
    return self.image.dtype == np.uint8


def pad_case(case: WorkingCase, patch: Shape, *, histogram: bool = False) -> PaddedCase:
  """Pads a scan smaller than the patch with its minimum on all sides and lists foreground voxels.

  The padding is unlabelled: nobody knows what lies beyond a scan. With `histogram` the quantiles
  of the scan, without the padding, are measured too.
  """
  image = _pad_array(case.image, patch, case.image.min())
  # As background it would teach that there is no organ beside a slab that cuts through one, and
  # outweigh the slab's own voxels.
  label = _pad_array(case.label, patch, UNLABELLED)
  own = measure_quantiles(case.image, _QUANTILES) if histogram else None
  return PaddedCase(image, label, case.mean, case.sd, *_list_positions(case, patch), own)


def _pad_array(array: np.ndarray, patch: Shape, value: int) -> np.ndarray:
  """Pads an array to the patch, with the array in its centre."""
  widths = padding_width(array.shape, patch)
  return np.pad(array, widths, constant_values=value) if np.any(widths) else array


def padding_width(shape: tuple[int, ...], patch: Shape) -> list[tuple[int, int]]:
  """Returns the voxels that `pad_case` adds before and after each axis."""
  missing = (max(0, p - n) for n, p in zip(shape, patch, strict=True))
  return [((m + 1) // 2, m // 2) for m in missing]


def _list_positions(case: WorkingCase, patch: Shape) -> tuple[np.ndarray, int]:
  """Returns the foreground voxels of the padded case, and how many of the rows are real."""
  # The same number of rows for every case, so that the host compiles one program for all of them.
  listed = case.centres
  before = [added for added, _ in padding_width(case.label.shape, patch)]
  rows = np.zeros((MOST, 3), np.int32)
  rows[: len(listed)] = listed + np.array(before, np.int32)
  return rows, len(listed)
