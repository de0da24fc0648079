"""Seals checkpoints: one small file holds the digests of all other files of a checkpoint.

The seal is written before Orbax gives the folder its final name, so a checkpoint without a seal was
not saved completely. It also holds the validation DSC, which becomes known after the state.
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
# The file does not exist, or its disk cannot read it. A soft mount also reports the second when its
# server is away.
_LOST = (errno.ENOENT, errno.EIO)


class DamagedError(Exception):
  """An error that says which file of a checkpoint is not as it was saved, and why."""


def write_seal(folder: Path, validation_dsc: float | None) -> None:
  """Writes the seal of a complete folder."""
  # Read back from the disk: what was written, not what should have been.
  files = {name: _digest_file(folder / name) for name in _list_files(folder)}
  _store_seal(folder, {"validation_dsc": validation_dsc, "files": files})


def add_validation_dsc(folder: Path, validation_dsc: float) -> None:
  """Adds the validation DSC to the seal of a folder.

  Raises:
    DamagedError: the folder has no readable seal.
  """
  _store_seal(folder, _read_seal(folder) | {"validation_dsc": validation_dsc})


def read_validation_dsc(folder: Path) -> float | None:
  """Reads the validation DSC of a checkpoint; None without a validation or a readable seal."""
  try:
    result: float | None = _read_seal(folder)["validation_dsc"]
    return result
  except DamagedError:
    return None


def verify_checkpoint(folder: Path) -> None:
  """Verifies every file of a checkpoint against its seal.

  Raises:
    DamagedError: a file is missing or not what was saved.
    OSError: a file cannot be opened, so nothing is known of its content.
  """
  for name, digest in _read_seal(folder)["files"].items():
    with _missing_file_is_damage(name):
      found = _digest_file(folder / name)
    if found != digest:
      raise DamagedError(f"{name}: not what was saved")


def _read_seal(folder: Path) -> dict[str, Any]:
  """Reads the seal of a checkpoint and verifies the seal's own digest.

  Raises:
    DamagedError: the seal is missing or not what was saved.
  """
  try:
    with _missing_file_is_damage(SEAL_NAME):
      content = read_json(folder / SEAL_NAME)
    intact = content.pop("blake2b") == _digest_content(content)
  # A flipped bit can leave valid JSON of another type, or without a key.
  except (ValueError, TypeError, AttributeError, KeyError):
    intact = False
  if not intact:
    raise DamagedError(f"{SEAL_NAME}: not what was saved")
  result: dict[str, Any] = content
  return result


@contextmanager
def _missing_file_is_damage(name: str) -> Iterator[None]:
  """Raises DamagedError within this context if a file is lost.

  Other errors pass: a file without read permission, say, may be what was saved.
  """
  try:
    yield
  except OSError as error:
    if error.errno not in _LOST:
      raise
    raise DamagedError(f"{name}: {error.strerror}") from None


def _store_seal(folder: Path, content: dict[str, Any]) -> None:
  # The seal has a digest of its own, or a damaged one could call a damaged file intact.
  sealed = {**content, "blake2b": _digest_content(content)}
  write_text(folder / SEAL_NAME, json.dumps(sealed, indent=2))


def _list_files(folder: Path) -> list[str]:
  paths = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
  return sorted(path.as_posix() for path in paths if str(path) not in _LATER)


def _digest_file(path: Path) -> str:
  # `file_digest` reads in pieces, so a large file does not fill the memory.
  with path.open("rb") as file:
    return hashlib.file_digest(file, "blake2b").hexdigest()


def _digest_content(content: dict[str, Any]) -> str:
  # By sorted keys: the order in which JSON was read or changed must not matter.
  return hashlib.blake2b(json.dumps(content, sort_keys=True).encode()).hexdigest()
