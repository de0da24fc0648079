"""Opens the files of a folder or of a zip one after the other; nothing is unpacked to disk.

A file inside `scan.zip` has the path `scan.zip/inner/1.dcm`. A zip is refused if a member's name
leads out of it, if members are encrypted, packed by another method than deflate or share a name, or
if it would unpack to more than a scan can be.
"""

from __future__ import annotations

import collections
import io
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.dicom.folder import (
  HIDDEN,
  FileListing,
  is_hidden,
  list_folder,
  refuse_special,
)

# Far more than a study of many series. A zip bomb, a few kilobytes of packed zeros, exceeds one of
# them.
MAX_MEMBERS = 50_000
MAX_UNPACKED_BYTES = 16 << 30
MAX_MEMBER_BYTES = 1 << 30
# Of bzip2 and LZMA `zipfile` unpacks a whole piece, whatever its size, before it counts.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_PIECE_BYTES = 1 << 20
# What `zipfile` raises of a damaged zip; the last is of a name that is marked as UTF-8 and is not.
_DAMAGED = (
  *(zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError),
  UnicodeDecodeError,
)


def is_zip(path: Path) -> bool:
  """Returns whether a path is read as a zip, which its suffix decides."""
  # Not the content: a damaged zip would otherwise be called a file of unknown kind.
  return path.suffix.lower() == ".zip" and not os.path.isdir(path)


def list_files(path: Path) -> FileListing:
  """Lists every visible file at any depth of a folder, or in a zip.

  Raises:
    UserError: the path is neither a folder nor a zip, or the zip is damaged or not safe.
  """
  refuse_special(path)
  if os.path.isdir(path):
    return list_folder(path)
  if not os.path.exists(path):
    raise UserError(f"{path}: no such file or folder; check the path")
  if not is_zip(path):
    raise UserError(f"{path}: a single file; a scan is a folder, or a .zip, of DICOM slices")
  with ExitStack() as stack:
    members = _list_members(path, _open_zip(path, stack))
  visible = sorted(path / name for name in members if not _is_hidden_member(name))
  hidden = len(members) - len(visible)
  return FileListing(visible, collections.Counter({HIDDEN: hidden} if hidden else {}), [], {})


class FileOpener(ExitStack):
  """Opens files of folders and of zips; each zip stays open until the end.

  So a zip's directory is read, and checked, once for all its files.
  """

  def __init__(self) -> None:
    super().__init__()
    self._archives: dict[Path, tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo]]] = {}

  def open(self, file: Path) -> BinaryIO:
    """Opens a file, or reads a zip's member into memory.

    Raises:
      UserError: it cannot be read.
    """
    archive = _find_archive(file)
    if archive is None:
      return _open_file(file)
    if archive not in self._archives:
      opened_zip = _open_zip(archive, self)
      self._archives[archive] = (opened_zip, _list_members(archive, opened_zip))
    return _read_member(file, *self._archives[archive], file.relative_to(archive).as_posix())


def open_files(files: Iterable[Path]) -> Iterator[tuple[Path, BinaryIO]]:
  """Yields files of folders or zips with an open stream, which is closed before the next one.

  Raises:
    UserError: a file cannot be read.
  """
  with FileOpener() as opener:
    for file in files:
      with opener.open(file) as stream:
        yield file, stream


def _find_archive(file: Path) -> Path | None:
  """Returns the zip that a path leads into; None for a plain file."""
  # Of `os`, which answers also where a member's name is too long for a file system.
  archives = (one for one in file.parents if is_zip(one) and os.path.isfile(one))
  return next(archives, None)


def _open_file(file: Path) -> BinaryIO:
  refuse_special(file)
  try:
    return file.open("rb")
  except OSError as error:
    raise UserError(f"{file}: cannot be read ({error.strerror}); check its permissions") from error


def _open_zip(path: Path, stack: ExitStack) -> zipfile.ZipFile:
  try:
    # Both in the stack: `ZipFile` does not close a file that it did not open.
    return stack.enter_context(zipfile.ZipFile(stack.enter_context(_open_file(path))))
  except _DAMAGED as error:
    raise UserError(
      f"{path}: not a readable zip, it is truncated or damaged; download or pack it again"
    ) from error


def _list_members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
  """Lists the files in a zip by name, after checking that it is safe to read.

  Raises:
    UserError: it is too large, a member leads out of it, has no name or cannot be read, or two
      share a name.
  """
  # Not `is_dir`, which fails where a name begins with NUL, and so is empty.
  entries = [entry for entry in archive.infolist() if not entry.filename.endswith("/")]
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
    _check_packing(path, entry)
    if name in members:  # readers disagree on which of the two counts
      raise UserError(f"{path}: holds {name} twice; pack it again, each file once")
    members[name] = entry
  return members


def _safe_name(path: Path, entry: zipfile.ZipInfo) -> str:
  """Returns the member's name as a plain relative path.

  Raises:
    UserError: there is none, or it leads out of the zip.
  """
  name = PurePosixPath(entry.filename.replace("\\", "/"))  # some programs of Windows write these
  if not name.parts:
    raise UserError(f"{path}: its member {entry.filename!r} has no name; pack the scan again")
  if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
    raise UserError(
      f"{path}: its member {entry.filename!r} leads out of the zip, which no scan needs; "
      "do not trust this file, or pack the scan again"
    )
  return name.as_posix()


def _check_packing(path: Path, entry: zipfile.ZipInfo) -> None:
  """Refuses a member that is encrypted, or packed by a method whose memory has no limit."""
  if entry.flag_bits & 1:  # bit 0 of the general purpose flags: encrypted
    problem = "encrypted"
  elif entry.compress_type not in _METHODS:
    problem = f"packed by method {entry.compress_type}, and only deflate is read"
  else:
    return
  member = f"its member {entry.filename} is {problem}"
  raise UserError(f"{path}: {member}; unpack it and name the folder")


def _is_hidden_member(name: str) -> bool:
  return any(is_hidden(part) for part in name.split("/"))


def _read_member(
  file: Path, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], name: str
) -> BinaryIO:
  """Reads one member into memory.

  Raises:
    UserError: it is not there, or it is damaged.
  """
  if name not in members:
    raise UserError(f"{file}: not in the zip; check the path")
  content = io.BytesIO()
  try:
    with archive.open(members[name]) as member:
      # In pieces, each of which bounds what is unpacked; as a whole, up to 2 GiB would be unpacked
      # before the rest of what the directory promised, and `_list_members` checked, is dropped.
      shutil.copyfileobj(member, content, _PIECE_BYTES)
  except _DAMAGED as error:
    raise UserError(f"{file}: damaged in the zip; download or pack it again") from error
  content.seek(0)
  return content
