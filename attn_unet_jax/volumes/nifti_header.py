"""Opens NIfTI files and decides by their headers whether they can be read, before any voxel is."""

from __future__ import annotations

import contextlib
import logging
import math
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
_HEAD_BYTES = 544
_UNITS = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}
# What a stored voxel becomes where it cannot stay as it is: float32.
_MADE_BYTES = 4


class _Fields(NamedTuple):
  """The places of some fields of a header, with their types.

  `magics` are those of a file that holds the voxels too, and of a pair.
  """

  size: int
  magic: int
  magics: tuple[bytes, bytes]
  dim: tuple[int, str]
  offset: tuple[int, str]
  slope: tuple[int, str]


_LAYOUTS = (
  _Fields(348, 344, (b"n+1", b"ni1"), (40, "i2"), (108, "f4"), (112, "f4")),
  _Fields(540, 4, (b"n+2", b"ni2"), (16, "i8"), (168, "i8"), (176, "f8")),
)

# nibabel logs what is wrong with a header beside raising it, and does not name the file. What it
# raises is named below.
logging.getLogger("nibabel.global").disabled = True
# It reads an extension of any length, and says so to a user who cannot change it.
warnings.filterwarnings("ignore", "Extension size is not a multiple of 16 bytes")


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
    head = stream.read(_HEAD_BYTES)
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


class _Layout(NamedTuple):
  """The fields of a header that nibabel believes without a look.

  Attributes:
    size: bytes of the header.
    order: '<' or '>', its byte order.
    single: whether the voxels are in the same file.
    offset: the byte at which they begin.
    slope: what stored values are multiplied by.
  """

  size: int
  order: str
  single: bool
  offset: float
  slope: float


def _find_layout(head: bytes) -> _Layout | None:
  """Reads the first bytes of a file; None if they are not those of NIfTI."""
  for fields in _LAYOUTS:
    magic = head[fields.magic : fields.magic + 3]
    if magic not in fields.magics or len(head) < fields.size:
      continue
    # By the number of axes, as nibabel has it, which also says what is wrong if neither fits.
    place, kind = fields.dim
    axes = {order: int(np.frombuffer(head, order + kind, 1, place)[0]) for order in "<>"}
    order = next((order for order, number in axes.items() if 1 <= number <= 7), "")
    if not order:
      return None
    offset, slope = (
      float(np.frombuffer(head, order + kind, 1, place)[0])
      for place, kind in (fields.offset, fields.slope)
    )
    return _Layout(fields.size, order, magic == fields.magics[0], offset, slope)
  return None


def _check_start(path: Path) -> None:
  """Refuses a header with numbers that nibabel believes whatever they are.

  It reads an extension at once, whatever length it claims, and on into the voxels; it reads voxels
  from inside the header; and it takes an infinite slope for none.

  Raises:
    UserError: the voxels begin at no possible place, an extension does not fit before them, or the
      slope is infinite.
  """
  with nib.openers.ImageOpener(str(path)) as stream:
    head = stream.read(_HEAD_BYTES)
    layout = _find_layout(head)
    if layout is None:
      return  # nibabel says what it is
    size, single = layout.size, layout.single
    least = size + 4 if single else 0
    if not least <= layout.offset <= _MAX_HEADER_BYTES:
      raise UserError(
        f"{path}: its voxels begin at byte {layout.offset:g}, its header says, which cannot be; it "
        "is damaged: copy or convert the file again"
      )
    # NaN and 0 mean that there is no slope, and both are common.
    if math.isinf(layout.slope):
      raise UserError(f"{path}: its slope is infinite, its header is damaged; convert it again")
    # In a pair the offset is that of the other file, and extensions go on to this one's end.
    end = int(layout.offset) if single else _MAX_HEADER_BYTES
    content = head + stream.read(max(0, end - len(head)))
  if content[size : size + 1].strip(b"\0"):
    _check_extensions(path, content[:end], size + 4, layout.order)


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
