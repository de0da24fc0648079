"""Opens NIfTI files and decides by their headers whether they can be read, before any voxel is."""

from __future__ import annotations

import contextlib
import logging
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from attn_unet_jax.runtime import memory
from attn_unet_jax.runtime.errors import UserError, format_error
from attn_unet_jax.volumes.volume import Grid

# By how much a file may grow when it is unpacked. Deflate codes at most 258 bytes in two bits; the
# other formats have no such limit.
_MAX_EXPANSION = {".gz": 1032, ".bz2": math.inf, ".zst": math.inf}
# Of header and extensions. The longest that programs write, with a copy of DICOM's tags, take some
# hundred kilobytes.
_MAX_HEADER_BYTES = 16 << 20
# By the first number of a header: its length, and where and how it says where the voxels begin.
_VOX_OFFSET_FIELDS = {348: (108, "f4"), 540: (168, "i8")}
_UNITS = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}
# What a stored voxel becomes where it cannot stay as it is: float32.
_MADE_BYTES = 4

# nibabel logs what is wrong with a header beside raising it, and does not name the file. What it
# raises is named below.
logging.getLogger("nibabel.global").disabled = True


@contextlib.contextmanager
def unreadable_is_user_error(path: Path) -> Iterator[None]:
  """Turns what readers raise on a bad file into an error that names it and the way out."""
  try:
    # Fields of a damaged header may be NaN, and NumPy would warn of each.
    with np.errstate(all="ignore"):
      yield
  except (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError) as error:
    raise UserError(
      f"{path}: not a readable NIfTI file ({format_error(error)}); convert the scan again"
    ) from error
  # What nibabel raises for a number that no header should have, such as an infinite offset, is of
  # many kinds.
  except (
    *(OSError, EOFError, ValueError, zlib.error),
    *(ArithmeticError, LookupError, TypeError, AttributeError),
  ) as error:
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


def open_image(path: Path) -> Any:
  """Opens a NIfTI file and reads its header.

  Raises:
    UserError: there is no such file, or it is not NIfTI.
  """
  if not path.exists():
    raise UserError(f"{path}: no such file; check the path")
  if path.is_dir():
    raise UserError(f"{path}: a folder, a NIfTI file (.nii or .nii.gz) is needed; name the file")
  _require_file(path)
  with unreadable_is_user_error(path):
    _check_compression(path)
    _check_start(path)
    # No memory map: it would change, or end the process, when the file is replaced meanwhile.
    image = nib.load(path, mmap=False)
  if not isinstance(image, nib.Nifti1Pair):
    raise UserError(f"{path}: {type(image).__name__}, not NIfTI; convert it to .nii.gz first")
  return image


def check_header(path: Path, image: Any) -> Grid:
  """Refuses what cannot be a scan, before any voxel is read.

  Returns:
    the grid of the voxels.

  Raises:
    UserError: its shape, type, size, unit, slope or affine.
  """
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
  # NaN and 0 mean that there is no slope, and both are common.
  if np.isinf(image.header["scl_slope"]):
    raise UserError(f"{path}: its slope is infinite, the header is damaged; convert the scan again")
  # Many writers leave the unit out, and nearly all of them mean mm. Metres and micrometres are
  # refused and not converted: they are more often a mistake than meant.
  code = int(image.header["xyzt_units"]) & 7  # the other bits are of the unit of time
  unit = _UNITS.get(code, f"code {code}, which NIfTI does not define")
  if unit not in ("mm", "unknown"):
    raise UserError(f"{path}: its unit is {unit}, geometry must be in mm; save it in mm")
  try:
    return Grid(shape[:3], image.affine)
  except ValueError as error:
    raise UserError(f"{path}: {format_error(error)}; set a valid sform in its header") from error


def is_scaled(image: Any) -> bool:
  """Returns whether a slope or an intercept changes the stored values."""
  return (image.dataobj.slope, image.dataobj.inter) != (1.0, 0.0)


def _require_file(path: Path) -> None:
  # A pipe would be waited for, without end if nobody writes to it.
  if not path.is_file():
    raise UserError(f"{path}: a pipe, socket or device, not a file; save the scan to a file first")


def _check_compression(path: Path) -> None:
  """Refuses a name that says the contrary of what is in the file."""
  with path.open("rb") as stream:
    head = stream.read(4)
    packed = head[:2] == b"\x1f\x8b"
  named = path.suffix.lower() == ".gz"
  if packed and path.suffix.lower() in (".nii", ".hdr", ".img"):
    raise UserError(
      f"{path}: compressed by gzip, but its name says not; rename it to {path.name}.gz"
    )
  if named and not packed and _find_layout(head):
    raise UserError(
      f"{path}: not compressed, but its name says so; rename it to {path.name[: -len('.gz')]}"
    )


def _find_layout(head: bytes) -> tuple[str, int] | None:
  """Returns the byte order and the length of a header by its first 4 bytes; None: not NIfTI."""
  for order in "<>":
    if len(head) >= 4 and (size := int(np.frombuffer(head[:4], f"{order}i4")[0])) in (348, 540):
      return order, size
  return None


def _check_start(path: Path) -> None:
  """Refuses a header that claims extensions which are not there.

  nibabel reads an extension at once, whatever length it claims, and would read on into the voxels.

  Raises:
    UserError: the voxels begin at no possible place, or an extension does not fit before them.
  """
  with nib.openers.ImageOpener(str(path)) as stream:
    head = stream.read(max(_VOX_OFFSET_FIELDS))
    layout = _find_layout(head)
    if layout is None or len(head) < layout[1]:
      return  # nibabel says what it is
    order, size = layout
    place, kind = _VOX_OFFSET_FIELDS[size]
    offset = float(np.frombuffer(head, f"{order}{kind}", 1, place)[0])
    if not 0 <= offset <= _MAX_HEADER_BYTES:
      raise UserError(
        f"{path}: its voxels begin at byte {offset:g}, the header is damaged; copy or convert the "
        "file again"
      )
    single = head[344:347] == b"n+1" if size == 348 else head[4:7] == b"n+2"
    # In a pair the offset is that of the other file, and extensions go on to this one's end.
    end = int(offset) if single else _MAX_HEADER_BYTES
    content = head + stream.read(max(0, end - len(head)))
  if content[size : size + 1].strip(b"\0"):
    if end < size + 4:
      raise UserError(f"{path}: its voxels begin inside its header, which is damaged; convert it")
    _check_extensions(path, content[:end], size + 4, order)


def _check_extensions(path: Path, content: bytes, place: int, order: str) -> None:
  """Refuses an extension that does not end where the voxels begin, or before."""
  while place + 16 <= len(content):  # less is no extension but filling
    length = int(np.frombuffer(content, f"{order}i4", 1, place)[0])
    if length < 8 or place + length > len(content):
      raise UserError(
        f"{path}: the extension at byte {place} of its header has a length of {length}, it is "
        "damaged; copy or convert the file again"
      )
    place += length


def _check_size(path: Path, image: Any) -> None:
  """Refuses a header that promises more voxels than its file or the memory can hold."""
  voxels = math.prod(image.shape)
  said = " x ".join(map(str, image.shape[:3])) + " voxels"
  dtype = image.get_data_dtype()
  stored = voxels * dtype.itemsize
  file = Path(image.file_map["image"].filename)  # of a pair .hdr and .img the second
  with unreadable_is_user_error(path):
    size = file.stat().st_size
    _require_file(file)
  if stored > size * _MAX_EXPANSION.get(file.suffix.lower(), 1):
    raise UserError(
      f"{path}: its header says {said}, {stored} bytes, but {file.name} has {size}; it is "
      "truncated or damaged: copy or convert it again"
    )
  stays = dtype == np.int16 and not is_scaled(image)
  memory.require_memory(
    stored + (0 if stays else voxels * _MADE_BYTES),
    f"{path}: its {said}",
    "crop the scan, or correct its header",
  )
