"""Writes label maps as NRRD, which viewers of medical images read."""

import gzip
import json
from collections.abc import Mapping

import numpy as np

from attn_unet_jax.volumes.volume import Volume

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0])
_LEVEL = 1  # of gzip: a label map shrinks to a hundredth with any
# What the voxels may be written as, with the first byte of each the lowest.
VOXEL_TYPES = {"uint8": "<u1", "uint16": "<u2"}


def format_nrrd(
  mask: Volume,
  label_names: Mapping[str, int],
  *,
  compressed: bool = True,
  voxel_type: str = "uint8",
) -> bytes:
  """Returns the content of a NRRD file: the voxels in the order of the volume, in LPS.

  Args:
    mask: class indices uint8 `[X, Y, Z]`.
    label_names: the value of each name, which the file repeats as JSON under the key `labels`.
    compressed: whether the voxels are packed by gzip.
    voxel_type: of the voxels in the file, one of `VOXEL_TYPES`.

  Raises:
    ValueError: the voxels have another type.
  """
  if mask.array.dtype != np.uint8:
    raise ValueError(f"label maps are uint8, not {mask.array.dtype}")
  place = _RAS_TO_LPS @ mask.affine[:3]
  header = [
    "NRRD0005",
    f"type: {voxel_type}",
    "dimension: 3",
    "space: left-posterior-superior",
    f"sizes: {' '.join(map(str, mask.shape))}",
    f"space directions: {' '.join(_format_vector(place[:, axis]) for axis in range(3))}",
    "kinds: domain domain domain",
    *(["endian: little"] if voxel_type != "uint8" else []),  # a single byte has no order
    f"encoding: {'gzip' if compressed else 'raw'}",
    f"space origin: {_format_vector(place[:, 3])}",
    f"labels:={json.dumps(dict(label_names))}",
    "",
    "",
  ]
  # The first axis is the fastest.
  voxels = mask.array.astype(VOXEL_TYPES[voxel_type], copy=False).tobytes(order="F")
  body = gzip.compress(voxels, _LEVEL, mtime=0) if compressed else voxels
  return "\n".join(header).encode() + body


def _format_vector(vector: np.ndarray) -> str:
  # + 0 makes a positive zero of a negative one.
  return f"({','.join(repr(value) for value in (vector + 0).tolist())})"
