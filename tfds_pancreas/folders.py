"""What lies under a folder of downloads, at any depth."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from attn_unet_jax.runtime.errors import UserError

Number = TypeVar("Number", int, str)


def walk_folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
  """Yields every folder once, links followed, with the sorted names of its files.

  Raises:
    UserError: a folder cannot be listed.
  """
  seen: set[tuple[int, int]] = set()
  for folder, subfolders, files in os.walk(root, followlinks=True, onerror=_refuse_unlisted):
    status = Path(folder).stat()
    if (status.st_dev, status.st_ino) in seen:  # by another link, or by a loop of them
      subfolders.clear()
      continue
    seen.add((status.st_dev, status.st_ino))
    # Hidden folders, and the one that macOS puts into archives, hold no data. Sorted, because each
    # file system lists them in its own order.
    subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "__MACOSX")))
    # Folders before links to them, so that each keeps its own path.
    subfolders.sort(key=lambda name: Path(folder, name).is_symlink())
    yield Path(folder), sorted(files)


def _refuse_unlisted(error: OSError) -> None:
  raise UserError(
    f"{error.filename}: cannot be listed ({error.strerror}), and may hold scans; check its "
    "permissions"
  ) from None


def take_single_files(found: Mapping[Number, Sequence[Path]]) -> dict[Number, Path]:
  """Returns the one file of each number.

  Raises:
    UserError: a number has two files.
  """
  # Which of the two belongs to the scan cannot be known, and is not guessed.
  for paths in found.values():
    if len(paths) > 1:
      raise UserError(f"{paths[0]}: {paths[1]} is the same case; remove one of them")
  return {number: paths[0] for number, paths in found.items()}
