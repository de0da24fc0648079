"""Reads and writes NIfTI files.

Reading takes NIfTI-1 and NIfTI-2, plain or gz, of any integer or float type, and applies slope and
intercept. The affine is the sform where its code is set, else the qform. A file with neither is
read with nibabel's fallback and a logged warning, since its orientation is a guess. A fourth axis
of length one is dropped. Writing gives uint8, int16 or float32, in millimetres.
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
# Labels may be stored with a slope, whose float32 is not exact: 1/255 gives 1.0000004 for 1.
_INTEGRAL_TOLERANCE = 1e-3
# By how much a file may grow when it is unpacked. Deflate codes at most 258 bytes in two bits; the
# other formats have no such limit.
_MAX_EXPANSION = {".gz": 1032, ".bz2": math.inf, ".zst": math.inf}

# nibabel logs what is wrong with a header beside raising it, and does not name the file. What it
# raises is named below.
logging.getLogger("nibabel.global").disabled = True


@contextlib.contextmanager
def _unreadable_is_user_error(path: Path) -> Iterator[None]:
  """Turns what readers raise on a bad file into an error that names it and the way out."""
  try:
    yield
  except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError) as error:
    raise UserError(
      f"{path}: not a readable NIfTI file ({format_error(error)}); convert the scan again"
    ) from error
  except (OSError, EOFError, ValueError, zlib.error) as error:
    # An `errno` comes from the system: permissions, or a failing disk. Without one the error is the
    # reader's own and the content is bad.
    if isinstance(error, OSError) and error.errno:
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
  """Opens a NIfTI file and reads its header.

  Raises:
    UserError: there is no such file, or it is not NIfTI.
  """
  if not path.exists():
    raise UserError(f"{path}: no such file; check the path")
  if path.is_dir():
    raise UserError(f"{path}: a folder, a NIfTI file (.nii or .nii.gz) is needed; name the file")
  with _unreadable_is_user_error(path):
    # nibabel reports a file that it may not read as one of unknown type.
    path.open("rb").close()
    # No memory map: it would change, or end the process, when the file is replaced meanwhile.
    image = nib.load(path, mmap=False)
  if not isinstance(image, nib.Nifti1Pair):
    raise UserError(f"{path}: {type(image).__name__}, not NIfTI; convert it to .nii.gz first")
  return image


def _check_header(path: Path, image: Any) -> None:
  """Refuses what cannot be a scan, before any voxel is read."""
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
  # Many writers leave the unit out, and nearly all of them mean mm. Metres and micrometres are
  # refused and not converted: they are more often a mistake than meant.
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
  """Refuses a header that promises more voxels than its file or the memory can hold."""
  voxels = " x ".join(map(str, image.shape[:3])) + " voxels"
  needed = math.prod(image.shape) * image.get_data_dtype().itemsize
  file = Path(image.file_map["image"].filename)  # of a pair .hdr and .img the second
  with _unreadable_is_user_error(path):
    size = file.stat().st_size
  if needed > size * _MAX_EXPANSION.get(file.suffix.lower(), 1):
    raise UserError(
      f"{path}: its header says {voxels}, {needed} bytes, but {file.name} has {size}; it is "
      "truncated or damaged: copy or convert it again"
    )
  memory.require_memory(needed, f"{path}: its {voxels}", "crop the scan, or correct its header")


def _read_gzip_values(path: Path, image_class: Any) -> np.ndarray:
  """Reads the voxels of a .gz file, and on to its end."""
  with gzip.open(path) as stream:
    array: np.ndarray = np.asanyarray(image_class.from_stream(stream).dataobj)
    # The checksum stands behind the last byte, and only who reads so far has it compared.
    while stream.read(1 << 20):
      pass
  return array


def _read_array(path: Path) -> tuple[np.ndarray, np.ndarray]:
  """Reads the values [X, Y, Z] with slope and intercept applied, and the affine."""
  image = _open_image(path)
  _check_header(path, image)
  with _unreadable_is_user_error(path):
    array = (
      _read_gzip_values(path, type(image))
      if path.suffix.lower() == ".gz"
      else np.asanyarray(image.dataobj)
    )
  # NIfTI stores X fastest. In this order the reshape is a view.
  return array.reshape(array.shape[:3], order="F"), image.affine


def _build_volume(path: Path, array: np.ndarray, affine: np.ndarray) -> Volume:
  """Puts values on their grid; an affine that cannot be one is the file's fault."""
  try:
    return Volume(array, affine)
  except ValueError as error:
    raise UserError(f"{path}: {format_error(error)}; set a valid sform in its header") from error


def _fits_type(array: np.ndarray, dtype: type[np.integer]) -> bool:
  """Returns whether the values of an integral array lie in the range of an integer type."""
  info = np.iinfo(dtype)
  return bool(array.min() >= info.min and array.max() <= info.max)


def _is_integral(array: np.ndarray, tolerance: float = 0.0) -> bool:
  """Returns whether all values are finite whole numbers, to a tolerance."""
  if array.dtype.kind in "iu":
    return True
  # Plane by plane, in NIfTI's memory order: no copy of the whole scan, and the first plane of a
  # float image decides. NaN and infinity give NaN, which no tolerance covers.
  with np.errstate(invalid="ignore"):
    return all(bool((np.abs(p - np.rint(p)) <= tolerance).all()) for p in array.T)


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
  path = Path(path)
  array, affine = _read_array(path)
  fits = _is_integral(array) and _fits_type(array, np.int16)
  with np.errstate(over="ignore"):  # what overflows becomes infinite, which `check_image` refuses
    array = array.astype(np.int16 if fits else np.float32, order="K", copy=False)
  return _build_volume(path, array, affine)


def read_grid(path: str | os.PathLike[str]) -> Grid:
  """Reads the grid of an image's voxels from its header; the voxels are not read.

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
    its values [X, Y, Z] on the file's own axes, in the first of uint8, int16 and int32 that holds
    them.

  Raises:
    UserError: the reasons of `read_nifti`; or a value is not a whole number, or beyond int32.
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
    if array.dtype.kind in "iu" and _fits_type(array, dtype):
      return array.astype(dtype)
  raise ValueError(f"values of type {array.dtype} do not fit uint8, int16 or float32")


def _copy_header(volume: Volume, path: Path) -> Any:
  """Builds a header with the geometry of a file, bit for bit.

  Nothing else is copied: descriptions and extensions may name the patient.

  Raises:
    ValueError: the volume does not lie on the file's grid.
  """
  image = _open_image(path)
  close = np.allclose(image.affine, volume.affine, rtol=1e-5, atol=1e-3)
  if image.shape[:3] != volume.shape or not close:
    raise ValueError(f"the volume to write is not on the grid of {path}")
  header = nib.Nifti2Header() if isinstance(image.header, nib.Nifti2Header) else nib.Nifti1Header()
  for field in _GEOMETRY_FIELDS:
    header[field] = image.header[field]
  # The first of them is the sign of the qform's third axis.
  header["pixdim"][:4] = image.header["pixdim"][:4]
  return header


def _new_header(volume: Volume) -> Any:
  """Builds a header with the volume's affine as sform, and as qform if it does not shear."""
  header = nib.Nifti1Header()
  header.set_sform(volume.affine, code="scanner")
  header.set_qform(volume.affine, code="scanner", strip_shears=True)
  # A qform is a rotation and spacings. Of a sheared affine it is another one, and a reader that
  # prefers it would put the voxels elsewhere: it is marked as absent.
  if not np.allclose(header.get_qform(), volume.affine, rtol=1e-5, atol=1e-3):
    header["qform_code"] = 0
  return header


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
    raise UserError(f"{path}: cannot be written ({error.strerror}); name another path") from error


def write_nifti(
  path: str | os.PathLike[str], volume: Volume, *, like: str | os.PathLike[str] | None = None
) -> None:
  """Writes a volume as uint8, int16 or float32 in mm, and makes missing folders.

  Args:
    path: the file to write; `.nii.gz` is compressed, `.nii` is not.
    volume: uint8, int16 and float32 keep their type. Bool becomes uint8, other integers the first
      of uint8 and int16 that holds their values, and other floats float32.
    like: a NIfTI file on whose grid the volume lies. Its sform, its qform and their codes are
      copied bit for bit. Without it both are the volume's affine, with code 1 (scanner).

  Raises:
    UserError: the suffix is another one, or the path cannot be written.
    ValueError: the volume is not on `like`'s grid, or its integers do not fit int16.
  """
  path = Path(path)
  if not path.name.endswith(_SUFFIXES):
    raise UserError(f"{path}: a NIfTI file ends in .nii or .nii.gz; name it so")
  header = _new_header(volume) if like is None else _copy_header(volume, Path(like))
  array = _to_stored_type(volume.array)
  header.set_data_dtype(array.dtype)
  header.set_xyzt_units("mm")
  image_class: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
  # Given an affine, nibabel would write its own sform and qform into the header.
  _save_image(image_class(array, None, header), path)
