"""NIfTI files in and out.

Reading takes NIfTI-1 and NIfTI-2, plain or gz, any integer or float type, slope and intercept
applied. The affine is the sform where its code is set, else the qform; a file with neither is
read with nibabel's fallback and a logged warning, since its orientation is a guess. A fourth
axis of length one is dropped. Writing gives uint8, int16 or float32, in millimetres.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from attn_unet_jax.runtime import memory
from attn_unet_jax.runtime.errors import UserError, format_error
from attn_unet_jax.runtime.files import atomic_write
from attn_unet_jax.volumes.volume import Grid, Volume

_SUFFIXES = (".nii", ".nii.gz")
_GEOMETRY_FIELDS = [
  *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
  *("sform_code", "srow_x", "srow_y", "srow_z"),
]
# A stored slope of 1/255 gives 1.0000004 for a label 1.
_INTEGRAL_TOLERANCE = 1e-3
_MAX_EXPANSION = {".gz": 1032, ".bz2": math.inf, ".zst": math.inf}  # at most, by the formats

# It tells what is wrong with a header beside raising it, and never of which file.
logging.getLogger("nibabel.global").disabled = True


@contextlib.contextmanager
def _unreadable_is_user_error(path: Path) -> Iterator[None]:
  try:
    yield
  except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError) as error:
    raise UserError(
      f"{path}: not a readable NIfTI file ({format_error(error)}); convert the scan again"
    ) from error
  except (OSError, EOFError, ValueError, zlib.error) as error:
    if isinstance(error, OSError) and error.errno:  # the system's; the readers' own have none
      raise UserError(
        f"{path}: cannot be read ({error.strerror}); check its permissions, and the disk"
      ) from error
    raise UserError(
      f"{path}: cannot be read, it is truncated or damaged ({format_error(error)}); "
      "copy or convert the file again"
    ) from error
  except MemoryError as error:
    raise UserError(f"{path}: does not fit into the free memory; make room, or crop it") from error


def _open_image(path: Path) -> Any:
  """Opens a NIfTI file: header only, no memory map (its file may be replaced later)."""
  if not path.exists():
    raise UserError(f"{path}: no such file; check the path")
  if path.is_dir():
    raise UserError(f"{path}: a folder, a NIfTI file (.nii or .nii.gz) is needed; name the file")
  with _unreadable_is_user_error(path):
    path.open("rb").close()  # nibabel takes a file that it may not read for one of no known type
    image = nib.load(path, mmap=False)
  if not isinstance(image, nib.Nifti1Pair):
    raise UserError(f"{path}: {type(image).__name__}, not NIfTI; convert it to .nii.gz first")
  return image


def _check_header(path: Path, image: Any) -> None:
  shape, kind = image.shape, image.get_data_dtype().kind
  if len(shape) < 3 or any(size != 1 for size in shape[3:]) or min(shape) < 1:
    raise UserError(
      f"{path}: shape {shape}, a scan must be 3-D [X, Y, Z]; extract one volume of a 4-D file, "
      "stack the slices of a 2-D one"
    )
  if kind not in "iuf":
    raise UserError(
      f"{path}: stores {image.get_data_dtype()}, a scan must hold integers or floats; convert it"
    )
  _check_size(path, image)
  unit = image.header.get_xyzt_units()[0]
  if unit not in ("mm", "unknown"):
    raise UserError(f"{path}: its unit is {unit}, geometry must be in mm; save it in mm")
  if not (image.header["sform_code"] or image.header["qform_code"]):
    logging.warning(
      "%s: neither sform nor qform is set; its orientation is taken as %s, which is a guess",
      path,
      "".join(nib.aff2axcodes(image.affine)),
    )


def _check_size(path: Path, image: Any) -> None:
  """Refuses a header that promises more voxels than its file, or memory, can hold."""
  voxels = " x ".join(map(str, image.shape[:3])) + " voxels"
  needed = math.prod(image.shape) * image.get_data_dtype().itemsize
  file = Path(image.file_map["image"].filename)
  with _unreadable_is_user_error(path):
    size = file.stat().st_size
  if needed > size * _MAX_EXPANSION.get(file.suffix.lower(), 1):
    raise UserError(
      f"{path}: its header says {voxels}, {needed} bytes, and {file.name} has {size}; it is "
      "truncated or damaged: copy or convert it again"
    )
  memory.require_memory(needed, f"{path}: its {voxels}", "crop the scan, or correct its header")


def _read_gzip_values(path: Path, image_class: Any) -> np.ndarray:
  """Reads to the very end, where gzip keeps the checksum that tells a damaged file."""
  with gzip.open(path) as stream:
    array = np.asanyarray(image_class.from_stream(stream).dataobj)
    while stream.read(1 << 20):
      pass
  return array


def _read_array(path: Path) -> tuple[np.ndarray, np.ndarray]:
  """Values [X, Y, Z] as stored, slope and intercept applied, and the affine."""
  image = _open_image(path)
  _check_header(path, image)
  with _unreadable_is_user_error(path):
    array = (
      _read_gzip_values(path, type(image))
      if path.suffix.lower() == ".gz"
      else np.asanyarray(image.dataobj)
    )
  return array.reshape(array.shape[:3], order="F"), image.affine


def _build_volume(path: Path, array: np.ndarray, affine: np.ndarray) -> Volume:
  try:
    return Volume(array, affine)
  except ValueError as error:
    raise UserError(f"{path}: {format_error(error)}; set a valid sform in its header") from error


def _fits_type(array: np.ndarray, dtype: type[np.integer]) -> bool:
  """Whether an integral array's values lie in an integer type's range."""
  info = np.iinfo(dtype)
  return bool(array.min() >= info.min and array.max() <= info.max)


def _is_integral(array: np.ndarray, tolerance: float = 0.0) -> bool:
  """Whether all values are finite whole numbers; looks plane by plane, in NIfTI's memory order."""
  if array.dtype.kind in "iu":
    return True
  with np.errstate(invalid="ignore"):
    return all(bool((np.abs(p - np.rint(p)) <= tolerance).all()) for p in array.T)


def read_nifti(path: str | os.PathLike[str]) -> Volume:
  """Reads an image.

  Args:
    path: a NIfTI file.

  Returns:
    its values [X, Y, Z] in the file's own axes, as int16 where that loses nothing (integral
    values within its range, whatever the stored type), else as float32.

  Raises:
    UserError: the file is missing, unreadable, truncated or not 3-D, or has no usable affine.
  """
  path = Path(path)
  array, affine = _read_array(path)
  fits = _is_integral(array) and _fits_type(array, np.int16)
  with np.errstate(over="ignore"):  # what overflows becomes inf, which check_image names
    array = array.astype(np.int16 if fits else np.float32, order="K", copy=False)
  return _build_volume(path, array, affine)


def read_grid(path: str | os.PathLike[str]) -> Grid:
  """Reads where an image's voxels lie, from the header alone.

  Raises:
    UserError: the file is missing, unreadable or not 3-D, or has no usable affine.
  """
  path = Path(path)
  image = _open_image(path)
  _check_header(path, image)
  try:
    return Grid(image.shape[:3], image.affine)
  except ValueError as error:
    raise UserError(f"{path}: {format_error(error)}; set a valid sform in its header") from error


def read_label(path: str | os.PathLike[str]) -> Volume:
  """Reads a label map.

  Args:
    path: a NIfTI file of any integer or float type whose values are whole numbers (to 1e-3,
      which a stored slope can cost).

  Returns:
    its values [X, Y, Z] in the file's own axes, as the first of uint8, int16, int32 that holds
    them.

  Raises:
    UserError: as `read_nifti`; or values that are not whole numbers, or beyond int32.
  """
  path = Path(path)
  array, affine = _read_array(path)
  if not _is_integral(array, _INTEGRAL_TOLERANCE):
    with np.errstate(invalid="ignore"):
      wrong = np.unique(array[~(np.abs(array - np.rint(array)) <= _INTEGRAL_TOLERANCE)])
    shown = ", ".join(f"{value:g}" for value in wrong[:5]) + (", ..." if len(wrong) > 5 else "")
    raise UserError(
      f"{path}: values {shown} are not whole numbers, labels must be; is this an image, or a label "
      "that was interpolated? resample labels with nearest neighbours"
    )
  whole = array if array.dtype.kind in "iu" else np.rint(array)
  for dtype in (np.uint8, np.int16, np.int32):
    if _fits_type(whole, dtype):
      return _build_volume(path, whole.astype(dtype, order="K", copy=False), affine)
  raise UserError(
    f"{path}: label values from {whole.min():g} to {whole.max():g}, at most 32 bits are read; "
    "renumber the labels"
  )


def _to_stored_type(array: np.ndarray) -> np.ndarray:
  """The array as uint8, int16 or float32: its own type, else one that holds its values."""
  if array.dtype in (np.uint8, np.int16, np.float32):
    return array
  if array.dtype.kind == "f":
    return array.astype(np.float32)
  if array.dtype.kind == "b":
    return array.astype(np.uint8)
  for dtype in (np.uint8, np.int16):
    if array.dtype.kind in "iu" and _fits_type(array, dtype):
      return array.astype(dtype)
  raise ValueError(f"values of type {array.dtype} do not fit uint8, int16 or float32")


def _copy_header(volume: Volume, path: Path) -> Any:
  """A new header whose geometry is that of a file, bit for bit; nothing else is taken over."""
  image = _open_image(path)
  close = np.allclose(image.affine, volume.affine, rtol=1e-5, atol=1e-3)
  if image.shape[:3] != volume.shape or not close:
    raise ValueError(f"the volume to write is not on the grid of {path}")
  header = nib.Nifti2Header() if isinstance(image.header, nib.Nifti2Header) else nib.Nifti1Header()
  for field in _GEOMETRY_FIELDS:
    header[field] = image.header[field]
  header["pixdim"][:4] = image.header["pixdim"][:4]
  return header


def _new_header(volume: Volume) -> Any:
  """A header with the affine as sform, and as qform unless it shears (a qform cannot)."""
  header = nib.Nifti1Header()
  header.set_sform(volume.affine, code="scanner")
  header.set_qform(volume.affine, code="scanner", strip_shears=True)
  if not np.allclose(header.get_qform(), volume.affine, rtol=1e-5, atol=1e-3):
    header["qform_code"] = 0
  return header


def _save_image(image: Any, path: Path) -> None:
  """Writes a file that is never there by half.

  The gzip header carries no name and no time, so equal volumes give equal files.
  """
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as beside, contextlib.ExitStack() as stack:
      stream: Any = stack.enter_context(beside.open("wb"))
      if path.name.endswith(".gz"):
        stream = stack.enter_context(gzip.GzipFile("", "wb", 1, stream, mtime=0))
      image.to_stream(stream)
  except OSError as error:
    raise UserError(f"{path}: cannot be written ({error.strerror}); name another path") from error


def write_nifti(
  path: str | os.PathLike[str], volume: Volume, *, like: str | os.PathLike[str] | None = None
) -> None:
  """Writes a volume as uint8, int16 or float32, in mm; missing folders are made.

  Args:
    path: where to; a suffix `.nii.gz` compresses, `.nii` does not.
    volume: uint8, int16 and float32 keep their type, bool becomes uint8, other integers the
      first of uint8 and int16 that holds their values, other floats float32.
    like: a NIfTI file on whose grid the volume lies; sform, qform and both codes are copied from
      it bit for bit. Without it both are the volume's affine, with code 1 (scanner).

  Raises:
    UserError: another suffix, or a path that cannot be written.
    ValueError: the volume is not on `like`'s grid, or its integers do not fit int16.
  """
  path = Path(path)
  if not path.name.endswith(_SUFFIXES):
    raise UserError(f"{path}: a NIfTI file ends in .nii or .nii.gz; name it so")
  header = _new_header(volume) if like is None else _copy_header(volume, Path(like))
  array = _to_stored_type(volume.array)
  header.set_data_dtype(array.dtype)
  header.set_xyzt_units("mm")
  image_class = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
  _save_image(
    image_class(array, None, header), path
  )  # without an affine the header is left as it is
