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

SEAL_NAME = "seal.json"
_LATER = ("_CHECKPOINT_METADATA", "commit_success.txt")  # Orbax writes them last; nobody reads them
# It is not there, or its disk cannot read it: so, of a server that is away, a soft mount says too.
_LOST = (errno.ENOENT, errno.EIO)


class DamagedError(Exception):
  """A checkpoint is not what was saved; says which file, and what is wrong with it."""


def write_seal(folder: Path, validation_dsc: float | None) -> None:
  """Seals a folder that is complete."""
  files = {name: _digest_file(folder / name) for name in _list_files(folder)}
  _store_seal(folder, {"validation_dsc": validation_dsc, "files": files})


def add_validation_dsc(folder: Path, validation_dsc: float) -> None:
  """Puts the validation DSC into the seal of a folder.

  Raises:
    DamagedError: it has no readable seal.
  """
  _store_seal(folder, _read_seal(folder) | {"validation_dsc": validation_dsc})


def read_validation_dsc(folder: Path) -> float | None:
  """The validation DSC of a checkpoint; None if it was not validated, or has no readable seal."""
  try:
    return _read_seal(folder)["validation_dsc"]
  except DamagedError:
    return None


def verify_checkpoint(folder: Path) -> None:
  """Reads every file of a checkpoint.

  Raises:
    DamagedError: one is missing or not what was saved.
    OSError: one may not be read: no word on what was saved.
  """
  for name, digest in _read_seal(folder)["files"].items():
    with _missing_file_is_damage(name):
      found = _digest_file(folder / name)
    if found != digest:
      raise DamagedError(f"{name}: not what was saved")


def _read_seal(folder: Path) -> dict[str, Any]:
  try:
    with _missing_file_is_damage(SEAL_NAME):
      content = read_json(folder / SEAL_NAME)
    intact = content.pop("blake2b") == _digest_content(content)
  except (ValueError, TypeError, AttributeError, KeyError):
    intact = False
  if not intact:
    raise DamagedError(f"{SEAL_NAME}: not what was saved")
  return content


@contextmanager
def _missing_file_is_damage(name: str) -> Iterator[None]:
  """A file that is lost is damage; one that is refused, or on a server that is away, is none."""
  try:
    yield
  except OSError as error:
    if error.errno not in _LOST:
      raise
    raise DamagedError(f"{name}: {error.strerror}") from None


def _store_seal(folder: Path, content: dict[str, Any]) -> None:
  sealed = {**content, "blake2b": _digest_content(content)}
  write_text(folder / SEAL_NAME, json.dumps(sealed, indent=2))


def _list_files(folder: Path) -> list[str]:
  paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
  return sorted(path.as_posix() for path in paths if str(path) not in _LATER)


def _digest_file(path: Path) -> str:
  with path.open("rb") as file:
    return hashlib.file_digest(file, "blake2b").hexdigest()


def _digest_content(content: dict[str, Any]) -> str:
  return hashlib.blake2b(json.dumps(content, sort_keys=True).encode()).hexdigest()
