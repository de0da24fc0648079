"""Opens the files of a folder or of a zip one after the other; nothing is unpacked to disk.

A file inside `scan.zip` has the path `scan.zip/inner/1.dcm`. A zip is refused if a member's name
leads out of it, if members are encrypted or share a name, or if it would unpack to more than a scan
can be.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from attn_unet_jax.runtime.errors import UserError

# Far more than a study of many series. A zip bomb, a few kilobytes of packed zeros, exceeds one of
# them.
MAX_MEMBERS = 50_000
MAX_UNPACKED_BYTES = 16 << 30
MAX_MEMBER_BYTES = 1 << 30
_DEFLATED_SYNTAX = b"1.2.840.10008.1.2.1.99"  # Deflated Explicit VR Little Endian
# Of the length of the file's meta information: 128 bytes of preamble, `DICM`, and of the element
# (0002,0000) the tag (4 bytes), the VR `UL` (2) and the value's length (2).
_META_LENGTH_OFFSET = 140
_MAX_META_BYTES = 1 << 16  # it has a dozen short elements; a larger number is damage
_CHUNK_BYTES = 1 << 20


def is_zip(path: Path) -> bool:
  """Returns whether a path is read as a zip, which its suffix decides."""
  # Not the content: a damaged zip would otherwise be called a file of unknown kind.
  return path.suffix.lower() == ".zip" and not path.is_dir()


def is_dicom(stream: BinaryIO) -> bool:
  """Returns whether a file begins as DICOM does: `DICM` after a preamble of 128 bytes."""
  stream.seek(0)
  head = stream.read(132)
  stream.seek(0)
  return head[128:] == b"DICM"


def check_deflated_size(file: Path, stream: BinaryIO) -> None:
  """Refuses a deflated DICOM file that unpacks to more than a scan can be.

  pydicom unpacks such a file at once and into memory, whatever its size.

  Raises:
    UserError: the file is too large, or damaged.
  """
  # The transfer syntax is a text in the meta information, which is never deflated itself.
  stream.seek(_META_LENGTH_OFFSET)
  length = int.from_bytes(stream.read(4), "little")
  if length > _MAX_META_BYTES or _DEFLATED_SYNTAX not in stream.read(length):
    stream.seek(0)
    return
  # Negative: raw deflate, without zlib's header (DICOM PS3.5 A.5).
  unpack, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
  packed = stream.read(_CHUNK_BYTES)
  try:
    while packed and not unpack.eof:
      # Never more than a chunk at a time, so a bomb does not fill the memory before it is counted.
      size += len(unpack.decompress(packed, _CHUNK_BYTES))
      packed = unpack.unconsumed_tail or stream.read(_CHUNK_BYTES)
      if size > MAX_MEMBER_BYTES:
        raise UserError(
          f"{file}: unpacks to more than {MAX_MEMBER_BYTES >> 20} MiB, which no scan does; "
          "do not trust this file"
        )
  except zlib.error as error:
    raise UserError(f"{file}: truncated or damaged; copy or export the file again") from error
  stream.seek(0)


def list_files(path: Path) -> list[Path]:
  """Lists every visible file at any depth of a folder, or in a zip, in sorted order.

  Raises:
    UserError: the path is neither a folder nor a zip, or the zip is damaged or not safe.
  """
  if path.is_dir():
    return sorted(_walk_files(path))
  if not path.exists():
    raise UserError(f"{path}: no such file or folder; check the path")
  if not is_zip(path):
    raise UserError(f"{path}: a single file; a scan is a folder, or a .zip, of DICOM slices")
  with ExitStack() as stack:
    members = _list_members(path, _open_zip(path, stack))
  return sorted(path / name for name in members)


def open_files(files: Iterable[Path]) -> Iterator[tuple[Path, BinaryIO]]:
  """Yields files of folders or zips with an open stream, which is closed before the next one.

  Raises:
    UserError: a file cannot be read.
  """
  with ExitStack() as stack:
    # A zip stays open to the end: its directory is read, and checked, once for all its files.
    archives: dict[Path, tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]] = {}
    for file in files:
      archive = _find_archive(file)
      if archive is None:
        with _open_file(file) as stream:
          yield file, stream
        continue
      if archive not in archives:
        opened_zip = _open_zip(archive, stack)
        archives[archive] = (opened_zip, _list_members(archive, opened_zip))
      yield file, _read_member(file, *archives[archive], file.relative_to(archive).as_posix())


def _walk_files(folder: Path) -> Iterator[Path]:
  for root, folders, names in os.walk(folder):
    # In place, which keeps `os.walk` out of hidden folders and makes its order the same everywhere.
    folders[:] = sorted(name for name in folders if not name.startswith("."))
    yield from (Path(root) / name for name in names if not name.startswith("."))


def _find_archive(file: Path) -> Path | None:
  """Returns the zip that a path leads into; None for a plain file."""
  if file.is_file():
    return None
  return next((parent for parent in file.parents if parent.is_file()), None)


def _open_file(file: Path) -> BinaryIO:
  try:
    return file.open("rb")
  except OSError as error:
    raise UserError(f"{file}: cannot be read ({error.strerror}); check its permissions") from error


def _open_zip(path: Path, stack: ExitStack) -> zipfile.ZipFile:
  try:
    return stack.enter_context(zipfile.ZipFile(stack.enter_context(_open_file(path))))
  except (OSError, zipfile.BadZipFile, NotImplementedError) as error:
    raise UserError(
      f"{path}: not a readable zip, it is truncated or damaged; download or pack it again"
    ) from error


def _list_members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
  """Lists the visible files in a zip by name, after checking that it is safe to read.

  Raises:
    UserError: it is too large, a member leads out of it or is encrypted, or two share a name.
  """
  entries = [entry for entry in archive.infolist() if not entry.is_dir()]
  size, largest = sum(e.file_size for e in entries), max((e.file_size for e in entries), default=0)
  if len(entries) > MAX_MEMBERS or size > MAX_UNPACKED_BYTES or largest > MAX_MEMBER_BYTES:
    raise UserError(
      f"{path}: unpacks to {len(entries)} files of {size / 2**30:.1f} GiB, the largest of "
      f"{largest / 2**20:.0f} MiB; at most {MAX_MEMBERS} files, {MAX_UNPACKED_BYTES >> 30} GiB and "
      f"{MAX_MEMBER_BYTES >> 20} MiB are read from a zip; unpack it and name the folder"
    )
  members: dict[str, zipfile.ZipInfo] = {}
  for entry in entries:
    name = _safe_name(path, entry)
    if name in members:  # readers disagree on which of the two counts
      raise UserError(f"{path}: holds {name} twice; pack it again, each file once")
    members[name] = entry
  return {name: entry for name, entry in members.items() if not _is_hidden(name)}


def _safe_name(path: Path, entry: zipfile.ZipInfo) -> str:
  """Returns the member's name as a plain relative path.

  Raises:
    UserError: the name leads out of the zip, or the member is encrypted.
  """
  name = PurePosixPath(entry.filename.replace("\\", "/"))  # some programs of Windows write these
  if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
    raise UserError(
      f"{path}: its member {entry.filename!r} leads out of the zip, which no scan needs; "
      "do not trust this file, or pack the scan again"
    )
  if entry.flag_bits & 1:  # bit 0 of the general purpose flags: encrypted
    raise UserError(f"{path}: its member {name} is encrypted; unpack it and name the folder")
  return name.as_posix()


def _is_hidden(name: str) -> bool:
  # macOS adds a folder __MACOSX with a twin `._NAME` of each file.
  return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def _read_member(
  file: Path, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], name: str
) -> BinaryIO:
  """Reads one member into memory.

  Raises:
    UserError: it is not there, or it is damaged.
  """
  if name not in members:
    raise UserError(f"{file}: not in the zip; check the path")
  try:
    # `zipfile` reads no more than the size in the directory, which `_list_members` has checked.
    return io.BytesIO(archive.read(members[name]))
  except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
    raise UserError(f"{file}: damaged in the zip; download or pack it again") from error
