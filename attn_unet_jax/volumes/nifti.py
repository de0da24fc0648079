"""Reads and writes NIfTI files.

Reading takes NIfTI-1 and NIfTI-2, plain or gz, of any integer or float type, and applies slope and
intercept. The affine is the sform where its code is set, else the qform, else nibabel's guess; what
is doubtful about it, `placement` says. A fourth axis of length one is dropped. Writing gives uint8,
int16 or float32, in millimetres.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from attn_unet_jax.runtime.errors import UserError, WriteError
from attn_unet_jax.runtime.files import atomic_write
from attn_unet_jax.volumes.nifti_header import check_header, open_image
from attn_unet_jax.volumes.nifti_voxels import StoredVoxels, read_voxels
from attn_unet_jax.volumes.volume import Grid, Volume

FULL_SHARE = 65535  # the stored value of the share 1
_SUFFIXES = (".nii", ".nii.gz")
_GEOMETRY_FIELDS = [
  *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
  *("sform_code", "srow_x", "srow_y", "srow_z"),
]
# Labels may be stored with a slope, whose float32 is not exact: 1/255 gives 1.0000004 for 1.
_INTEGRAL_TOLERANCE = 1e-3
_SHOWN = 5  # values in a message


def _open_voxels(path: Path) -> tuple[StoredVoxels, Grid]:
  image = open_image(path)
  grid = check_header(path, image)
  return read_voxels(path, image), grid


def _fits_type(low: float, high: float, dtype: type[np.integer]) -> bool:
  """Returns whether whole numbers from `low` to `high` lie in the range of an integer type."""
  info = np.iinfo(dtype)
  return bool(low >= info.min and high <= info.max)


def _find_range(voxels: StoredVoxels, tolerance: float = 0.0) -> tuple[float, float] | None:
  """Returns lowest and highest value if all are finite whole numbers, to a tolerance; else None."""
  if voxels.are_integers:
    # No pass over their fractions: they have none.
    return voxels.raw.min(), voxels.raw.max()
  low, high = np.inf, -np.inf
  # The first plane of a float image decides. NaN and infinity give NaN, which no tolerance covers.
  for plane in voxels.iterate_planes():
    if not _are_whole(plane, tolerance).all():
      return None
    low, high = min(low, np.rint(plane.min())), max(high, np.rint(plane.max()))
  return low, high


def _are_whole(values: np.ndarray, tolerance: float) -> np.ndarray:
  # Infinity less itself is NaN, of which NumPy warns.
  with np.errstate(invalid="ignore"):
    whole: np.ndarray = np.abs(values - np.rint(values)) <= tolerance
  return whole


def read_nifti(path: str | os.PathLike[str]) -> Volume:
  """Reads an image.

  Args:
    path: a NIfTI file.

  Returns:
    its values [X, Y, Z] on the file's own axes: int16 if all are whole numbers within its range,
    whatever the stored type, else float32.

  Raises:
    UserError: the file is missing, unreadable, truncated or not 3-D, or has no usable affine.
  """
  voxels, grid = _open_voxels(Path(path))
  found = _find_range(voxels)
  fits = found is not None and _fits_type(*found, np.int16)
  with np.errstate(over="ignore"):  # what overflows becomes infinite, which `check_image` refuses
    return Volume(voxels.convert_type(np.int16 if fits else np.float32), grid.affine)


def read_grid(path: str | os.PathLike[str]) -> Grid:
  """Reads the grid of an image's voxels from its header; the voxels are not read.

  Raises:
    UserError: the file is missing, unreadable or not 3-D, or has no usable affine.
  """
  path = Path(path)
  return check_header(path, open_image(path))


def read_label(path: str | os.PathLike[str]) -> Volume:
  """Reads a label map.

  Args:
    path: a NIfTI file of any integer or float type whose values are whole numbers (to 1e-3,
      which a stored slope can cost).

  Returns:
    its values [X, Y, Z] on the file's own axes, in the first of uint8, int16 and int32 that holds
    them.

  Raises:
    UserError: the reasons of `read_nifti`; or a value is not a whole number, or beyond int32.
  """
  path = Path(path)
  voxels, grid = _open_voxels(path)
  found = _find_range(voxels, _INTEGRAL_TOLERANCE)
  if found is None:
    raise UserError(
      f"{path}: values {_format_fractions(voxels)} are not whole numbers, labels must be; is this "
      "an image, or a label that was interpolated? resample labels with nearest neighbours"
    )
  for dtype in (np.uint8, np.int16, np.int32):
    if _fits_type(*found, dtype):
      return Volume(voxels.convert_type(dtype, rounded=not voxels.are_integers), grid.affine)
  raise UserError(
    f"{path}: label values from {found[0]:g} to {found[1]:g}, at most 32 bits are read; "
    "renumber the labels"
  )


def _format_fractions(voxels: StoredVoxels) -> str:
  """Formats the lowest values that are no whole numbers."""
  wrong = np.empty(0)
  for plane in voxels.iterate_planes():
    here = plane[~_are_whole(plane, _INTEGRAL_TOLERANCE)]
    wrong = np.unique(np.concatenate((wrong, here)))[: _SHOWN + 1]
  return ", ".join(f"{value:g}" for value in wrong[:_SHOWN]) + (
    ", ..." if len(wrong) > _SHOWN else ""
  )


def _to_stored_type(array: np.ndarray) -> np.ndarray:
  """Converts an array to uint8, int16 or float32, which every viewer reads.

  Raises:
    ValueError: its integers do not fit int16, or it holds no numbers.
  """
  if array.dtype in (np.uint8, np.int16, np.float32):
    return array
  if array.dtype.kind == "f":
    return array.astype(np.float32)
  if array.dtype.kind == "b":
    return array.astype(np.uint8)
  for dtype in (np.uint8, np.int16):
    if array.dtype.kind in "iu" and _fits_type(array.min(), array.max(), dtype):
      return array.astype(dtype)
  raise ValueError(f"values of type {array.dtype} do not fit uint8, int16 or float32")


def _copy_header(grid: Grid, path: Path) -> Any:
  """Builds a header with the geometry of a file, bit for bit.

  Nothing else is copied: descriptions and extensions may name the patient.

  Raises:
    ValueError: the grid is not the file's.
  """
  image = open_image(path)
  close = np.allclose(image.affine, grid.affine, rtol=1e-5, atol=1e-3)
  if image.shape[:3] != grid.shape or not close:
    raise ValueError(f"the volume to write is not on the grid of {path}")
  # A side of more than 32,767 voxels fits into no header of NIfTI-1.
  header = nib.Nifti2Header() if isinstance(image.header, nib.Nifti2Header) else nib.Nifti1Header()
  for field in _GEOMETRY_FIELDS:
    header[field] = image.header[field]
  # The first of them is the sign of the qform's third axis.
  header["pixdim"][:4] = image.header["pixdim"][:4]
  return header


def _new_header(grid: Grid) -> Any:
  """Builds a header with the grid's affine as sform, and the nearest rotation as qform."""
  header = nib.Nifti1Header()
  header.set_sform(grid.affine, code="scanner")
  # A qform is a rotation and spacings. Where slices drift sideways it is another affine than the
  # sform, but ITK opens no file with a sheared sform unless a qform stands beside it.
  header.set_qform(_straighten(grid.affine), code="scanner")
  return header


def _straighten(affine: np.ndarray) -> np.ndarray:
  """Returns the affine with perpendicular axes: X is kept, and Y within its plane with X.

  So ITK places a series of slices, whose X and Y are perpendicular: the first slice stays, and the
  others lie straight above it.
  """
  # Of a QR decomposition, Q is the basis that is made of the columns one after the other.
  directions, lengths = np.linalg.qr(affine[:3, :3])
  # QR leaves the signs open: with these no axis is turned round.
  signs = np.where(np.diag(lengths) < 0, -1.0, 1.0)
  straight = affine.copy()
  straight[:3, :3] = directions * signs * np.linalg.norm(affine[:3, :3], axis=0)
  return straight


def _save_image(image: Any, path: Path) -> None:
  """Writes a file at once, so that nobody ever finds half of it."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, contextlib.ExitStack() as stack:
      stream: Any = stack.enter_context(temporary.open("wb"))
      if path.name.endswith(".gz"):
        # No name and no time in gzip's header, so equal volumes give equal files. Level 1 takes
        # a third of the default's time, and masks are small at any level.
        stream = stack.enter_context(gzip.GzipFile("", "wb", 1, stream, mtime=0))
      image.to_stream(stream)
  except OSError as error:
    raise WriteError(path, error, "name another path") from error


def write_nifti(
  path: str | os.PathLike[str],
  volume: Volume,
  *,
  like: str | os.PathLike[str] | None = None,
  label_names: Mapping[str, int] | None = None,
) -> None:
  """Writes a volume as uint8, int16 or float32 in mm, and makes missing folders.

  Args:
    path: the file to write; `.nii.gz` is compressed, `.nii` is not.
    volume: uint8, int16 and float32 keep their type. Bool becomes uint8, other integers the first
      of uint8 and int16 that holds their values, and other floats float32.
    like: a NIfTI file on whose grid the volume lies. Its sform, its qform and their codes are
      copied bit for bit. Without it both are the volume's affine, with code 1 (scanner).
    label_names: the value of each name in a label map. They go into the header's extension, as a
      comment in JSON, `{"labels": {"background": 0, "pancreas": 1}}`.

  Raises:
    UserError: the suffix is another one.
    WriteError: the path cannot be written.
    ValueError: the volume is not on `like`'s grid, or its integers do not fit int16.
  """
  header = _make_header(path, volume.grid, like)
  array = _to_stored_type(volume.array)
  header.set_data_dtype(array.dtype)
  if label_names is not None:
    _add_comment(header, {"labels": dict(label_names)})
  _save_array(array, header, Path(path))


def write_shares(
  path: str | os.PathLike[str],
  shares: np.ndarray,
  grid: Grid,
  names: Sequence[str],
  *,
  like: str | os.PathLike[str] | None = None,
) -> None:
  """Writes several maps of values from 0 to 1 as one file in 16 bits.

  NIfTI has no floats of 16 bits. The file has integers and the slope 1 / 65535, which every reader
  applies; a step is finer than that of a float16 above 0.03.

  Args:
    path: the file to write.
    shares: uint16 `[X, Y, Z, K]` in units of 1 / 65535.
    grid: where the voxels lie.
    names: of the K maps. They go into the header's extension, as a comment in JSON,
      `{"maps": ["background", "pancreas"]}`.
    like: as of `write_nifti`.

  Raises:
    UserError: the suffix is another one.
    WriteError: the path cannot be written.
  """
  header = _make_header(path, grid, like)
  header.set_data_dtype(np.uint16)
  _add_comment(header, {"maps": list(names)})
  _save_array(shares, header, Path(path), slope=1 / FULL_SHARE)


def _make_header(
  path: str | os.PathLike[str], grid: Grid, like: str | os.PathLike[str] | None
) -> Any:
  """Builds the header of a file to write."""
  if not Path(path).name.endswith(_SUFFIXES):
    raise UserError(f"{path}: a NIfTI file ends in .nii or .nii.gz; name it so")
  header = _new_header(grid) if like is None else _copy_header(grid, Path(like))
  header.set_xyzt_units("mm")
  return header


def _add_comment(header: Any, content: object) -> None:
  header.extensions.append(nib.nifti1.Nifti1Extension("comment", json.dumps(content).encode()))


def _save_array(array: np.ndarray, header: Any, path: Path, slope: float | None = None) -> None:
  image_class: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
  # Given an affine, nibabel would write its own sform and qform into the header.
  image = image_class(array, None, header)
  if slope is not None:
    # The image has a header of its own, without the slope of the one that it was given.
    image.header.set_slope_inter(slope, 0)
  _save_image(image, path)
