"""Reads the voxels of an open NIfTI file, and converts them without a second copy of a scan."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.volumeutils import apply_read_scaling

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti_header import is_scaled, unreadable_is_user_error

# What may follow the voxels of a .gz. It is unpacked only to have the checksum behind it compared.
_MAX_TAIL_BYTES = 64 << 20


class StoredVoxels(NamedTuple):
  """The voxels of a file as they are stored, and what they are multiplied by and added to.

  Attributes:
    raw: [X, Y, Z], X fastest in memory.
    slope: None where the stored values are the values.
    inter: the intercept.
  """

  raw: np.ndarray
  slope: float | None
  inter: float | None

  @property
  def are_integers(self) -> bool:
    """Returns whether the values are integers by their type."""
    return self.slope is None and self.raw.dtype.kind in "iu"

  def iterate_planes(self) -> Iterator[np.ndarray]:
    """Yields the values of each plane [Y, X]; scaled ones as float64."""
    # In the order of memory. A whole scan in float64 takes up to eight times its file.
    for plane in self.raw.T:
      yield plane if self.slope is None else apply_read_scaling(plane, self.slope, self.inter)

  def convert_type(self, dtype: Any, *, rounded: bool = False) -> np.ndarray:
    """Returns the values [X, Y, Z] as another type; `rounded` to whole numbers before."""
    if self.slope is None and not rounded:
      return self.raw.astype(dtype, order="K", copy=False)
    values = np.empty(self.raw.shape[::-1], dtype)
    for target, plane in zip(values, self.iterate_planes(), strict=True):
      target[:] = np.rint(plane) if rounded else plane
    return values.T


def read_voxels(path: Path, image: Any) -> StoredVoxels:
  """Reads the voxels of an image whose header has been checked.

  Raises:
    UserError: the file is truncated or damaged, or memory ends.
  """
  with unreadable_is_user_error(path):
    # Of a pair .hdr.gz and .img.gz the second; else the file itself.
    file = Path(image.file_map["image"].filename)
    is_packed = file.suffix.lower() == ".gz"
    raw = _read_gzip(file, image.dataobj) if is_packed else image.dataobj.get_unscaled()
  # NIfTI stores X fastest. In this order the reshape is a view.
  raw = raw.reshape(raw.shape[:3], order="F")
  if not is_scaled(image):
    return StoredVoxels(raw, None, None)
  return StoredVoxels(raw, np.float64(image.dataobj.slope), np.float64(image.dataobj.inter))


def _read_gzip(path: Path, proxy: Any) -> np.ndarray:
  """Reads the voxels of a .gz file, and on to its end.

  Args:
    path: the file.
    proxy: nibabel's, of the voxels in it.
  """
  with gzip.open(path) as stream:
    opened = ArrayProxy(stream, (proxy.shape, proxy.dtype, proxy.offset), mmap=False)
    raw: np.ndarray = opened.get_unscaled()
    # The checksum stands behind the last byte, and only who reads so far has it compared.
    tail = 0
    while block := stream.read(1 << 20):
      tail += len(block)
      if tail > _MAX_TAIL_BYTES:
        raise UserError(
          f"{path}: goes on for more than {_MAX_TAIL_BYTES >> 20} MiB behind the voxels that its "
          "header promises; the header is damaged, or do not trust this file"
        )
  return raw
