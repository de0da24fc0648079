"""A checkpoint's seal: the digest of every file as it was saved, in one small file among them.

It is written before Orbax gives the folder its final name, so a checkpoint without one was not
saved whole. The validation DSC is in it too, since it becomes known after the state.
"""

import errno
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attn_unet_jax.runtime.files import read_json, write_text

NAME = "seal.json"
_LATER = ("_CHECKPOINT_METADATA", "commit_success.txt")  # Orbax writes them last; nobody reads them
# It is not there, or its disk cannot read it: so, of a server that is away, a soft mount says too.
_LOST = (errno.ENOENT, errno.EIO)


class DamagedError(Exception):
  """A checkpoint is not what was saved; says which file, and what is wrong with it."""


def write(folder: Path, validation_dsc: float | None) -> None:
  """Seals a folder that is complete."""
  files = {name: _digest(folder / name) for name in _names(folder)}
  _store(folder, {"validation_dsc": validation_dsc, "files": files})


def score(folder: Path, validation_dsc: float) -> None:
  """Puts the validation DSC into the seal of a folder.

  Raises:
    DamagedError: it has no readable seal.
  """
  _store(folder, _read(folder) | {"validation_dsc": validation_dsc})


def validation_dsc(folder: Path) -> float | None:
  """The validation DSC of a checkpoint; None if it was not validated, or has no readable seal."""
  try:
    return _read(folder)["validation_dsc"]
  except DamagedError:
    return None


def verify(folder: Path) -> None:
  """Reads every file of a checkpoint.

  Raises:
    DamagedError: one is missing or not what was saved.
    OSError: one may not be read: no word on what was saved.
  """
  for name, digest in _read(folder)["files"].items():
    with _given_back(name):
      found = _digest(folder / name)
    if found != digest:
      raise DamagedError(f"{name}: not what was saved")


def _read(folder: Path) -> dict[str, Any]:
  try:
    with _given_back(NAME):
      content = read_json(folder / NAME)
    intact = content.pop("blake2b") == _digest_of(content)
  except (ValueError, TypeError, AttributeError, KeyError):
    intact = False
  if not intact:
    raise DamagedError(f"{NAME}: not what was saved")
  return content


@contextmanager
def _given_back(name: str) -> Iterator[None]:
  """A file that is lost is damage; one that is refused, or on a server that is away, is none."""
  try:
    yield
  except OSError as error:
    if error.errno not in _LOST:
      raise
    raise DamagedError(f"{name}: {error.strerror}") from None


def _store(folder: Path, content: dict[str, Any]) -> None:
  sealed = {**content, "blake2b": _digest_of(content)}
  write_text(folder / NAME, json.dumps(sealed, indent=2))


def _names(folder: Path) -> list[str]:
  paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
  return sorted(path.as_posix() for path in paths if str(path) not in _LATER)


def _digest(path: Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "blake2b").hexdigest()


def _digest_of(content: dict[str, Any]) -> str:
  return hashlib.blake2b(json.dumps(content, sort_keys=True).encode()).hexdigest()
