"""What lies under a folder of downloads, at any depth."""

import os
from collections.abc import Iterator
from pathlib import Path


def walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
  """Every folder, links followed, with the sorted names of its files.

  Hidden folders, and the one that macOS puts into archives, hold no data.
  """
  for place, folders, files in os.walk(root, followlinks=True):
    folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
    yield Path(place), sorted(files)
