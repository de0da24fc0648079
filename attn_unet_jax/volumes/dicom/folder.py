"""Lists the files of a folder at any depth; links are followed, and nothing is waited for."""

from __future__ import annotations

import collections
import errno
import os
from pathlib import Path
from typing import NamedTuple

from attn_unet_jax.runtime.errors import UserError

HIDDEN = "hidden"


class FileListing(NamedTuple):
  """The files of a folder or a zip.

  Attributes:
    files: the visible files, sorted; a file that several links lead to is listed once.
    skipped: the number of other entries, by kind.
    broken: links that lead to nothing.
    damaged: entries that may hide slices -> one line that says what is wrong.
  """

  files: list[Path]
  skipped: collections.Counter[str]
  broken: list[Path]
  damaged: dict[Path, str]


def is_hidden(name: str) -> bool:
  """Returns whether a file or folder of this name holds no data."""
  # macOS adds a folder __MACOSX with a twin `._NAME` of each file to an archive.
  return name.startswith(".") or name == "__MACOSX"


def list_folder(folder: Path) -> FileListing:
  """Lists a folder's files at any depth."""
  listing = FileListing([], collections.Counter(), [], {})
  seen: set[tuple[int, int]] = set()
  folders, links = [folder], list[Path]()
  # Links come last: a folder that is there itself keeps its own path.
  while folders or links:
    one = folders.pop() if folders else links.pop()
    try:
      if _is_seen(one, seen):
        listing.skipped["links to folders listed already"] += 1
        continue
      with os.scandir(one) as entries:
        inside = list(entries)
    except OSError as error:
      listing.damaged[one] = (
        f"{one}: cannot be listed ({error.strerror}), and may hold slices; check its permissions"
      )
      continue
    for entry in inside:
      _add_entry(entry, one / entry.name, listing, folders, links)
  _drop_linked_twice(listing, seen)
  return listing


def refuse_special(path: Path) -> None:
  """Refuses what is neither a file nor a folder, such as a fifo, which would be waited for.

  Raises:
    UserError: the path is there and is something else.
  """
  # Of `os`, which answers also where a name is too long for the file system.
  if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
    raise UserError(_describe_special(path))


def _describe_special(path: Path) -> str:
  return f"{path}: neither a file nor a folder but a fifo, socket or device; take it out"


def _add_entry(
  entry: os.DirEntry[str],
  path: Path,
  listing: FileListing,
  folders: list[Path],
  links: list[Path],
) -> None:
  """Adds an entry of a folder to the lists where it belongs."""
  if is_hidden(entry.name):
    listing.skipped[HIDDEN] += 1
    return
  try:
    if entry.is_dir():
      (links if entry.is_symlink() else folders).append(path)
    elif entry.is_file():
      listing.files.append(path)
    elif entry.is_symlink() and not path.exists():
      listing.broken.append(path)
    else:
      listing.damaged[path] = _describe_special(path)
  except OSError as error:
    if error.errno == errno.ELOOP:  # a link to itself
      listing.broken.append(path)
    else:
      listing.damaged[path] = f"{path}: cannot be read ({error.strerror}); check its permissions"


def _drop_linked_twice(listing: FileListing, seen: set[tuple[int, int]]) -> None:
  """Sorts the files, and drops those that are another one by a second name."""
  # Plain files first, so that they and not links to them are kept.
  ordered = sorted(listing.files, key=lambda path: (path.is_symlink(), path))
  listing.files.clear()
  for path in ordered:
    if _is_seen(path, seen):
      listing.skipped["links to files listed already"] += 1
    else:
      listing.files.append(path)
  listing.files.sort()


def _is_seen(path: Path, seen: set[tuple[int, int]]) -> bool:
  """Returns whether the same file or folder was met before, by another name."""
  status = path.stat()  # of what a link leads to
  identity = status.st_dev, status.st_ino
  known = identity in seen and status.st_ino != 0  # 0: a file system that does not number files
  seen.add(identity)
  return known
