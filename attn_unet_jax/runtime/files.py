"""Files that are there whole or not at all, and what is tried of a folder before long work."""

import json
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attn_unet_jax.runtime.errors import UserError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
  """Gives a path beside to write to; what is there at the end gets the name `path`.

  Its name is nobody else's, so several processes and hosts may write the same file. Where the work
  inside fails, nothing is left, and what was there before stays.
  """
  beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
  try:
    yield beside
    beside.replace(path)
  finally:
    with suppress(OSError):
      beside.unlink()


def write_text(path: Path, text: str) -> None:
  """Writes a text in UTF-8, whatever the locale: the file is there whole or not at all."""
  with atomic_write(path) as beside:
    beside.write_text(text, encoding="utf-8", errors="backslashreplace")


def remove_unfinished_files(folder: Path, older_than_s: float = 0.0) -> None:
  """Removes what processes that were killed were writing by `whole`.

  Args:
    folder: where.
    older_than_s: seconds for which nothing was written to it, where others may be at work.
  """
  for path in folder.glob(".*.part"):
    with suppress(OSError):  # another process does the same, or another user's may not be removed
      if time.time() - path.stat().st_mtime >= older_than_s:
        path.unlink()


def read_json(path: Path) -> Any:
  """What a JSON file holds.

  Raises:
    ValueError: it is not readable as JSON.
    OSError: it may not be read.
  """
  try:
    return json.loads(path.read_bytes())
  except RecursionError as error:
    raise ValueError(f"nested too deep: {error}") from None


def read_json_object(path: Path, way_out: str) -> dict[str, Any]:
  """The object in a JSON file; empty where there is no file.

  Raises:
    UserError: it holds something else; says what to do, the `way_out`.
    OSError: it may not be read.
  """
  try:
    content = read_json(path)
  except FileNotFoundError:
    return {}
  except ValueError as error:
    raise UserError(f"{path}: not readable as JSON ({error}); {way_out}") from None
  if not isinstance(content, dict):
    raise UserError(f"{path}: not an object in JSON; {way_out}")
  return content


def check_writable(folder: Path) -> None:
  """Tries, before the work and not after it, whether files can be made in a folder.

  It need not be there, and nothing of the trial is left.

  Raises:
    UserError: they cannot.
  """
  there = folder
  try:
    while not there.exists():
      there = there.parent
    with tempfile.TemporaryFile(dir=there):
      pass
  except OSError as error:
    raise UserError(
      f"{folder}: cannot be written ({error.strerror}); make it so, or name another"
    ) from None
