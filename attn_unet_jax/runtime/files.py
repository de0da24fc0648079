"""Writes files at once, so that nobody finds half of one, and reads JSON with errors that help."""

import json
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attn_unet_jax.runtime.errors import UserError, WriteError


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
  """Yields a temporary sibling path that replaces `path` on success.

  If the work inside fails, the temporary file is removed and the file at `path` stays as it was.
  Several processes and hosts may write the same file; the last one to finish wins.
  """
  # A sibling, since renaming is atomic only within a file system. Hidden, so that a reader of the
  # folder does not take it for a case. Its random name is nobody else's on any host.
  temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
  try:
    yield temporary
    temporary.replace(path)
  finally:
    with suppress(OSError):  # after the renaming there is nothing to remove
      temporary.unlink()


def write_text(path: Path, text: str) -> None:
  """Writes a text in UTF-8 at once, whatever the locale."""
  with atomic_write(path) as temporary:
    # A file name that is no UTF-8 is a string with surrogates, and may stand in the text.
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def remove_unfinished_files(folder: Path, older_than_s: float = 0.0) -> None:
  """Removes the temporary files of `atomic_write` that killed processes left.

  Args:
    folder: the folder to clear.
    older_than_s: removes only files that nobody has written to for so many seconds, since other
      processes may be at work in the folder.
  """
  for path in folder.glob(".*.part"):
    with suppress(OSError):  # another process was faster, or the file is another user's
      if time.time() - path.stat().st_mtime >= older_than_s:
        path.unlink()


def read_json(path: Path) -> Any:
  """Reads a JSON file.

  Raises:
    ValueError: the content is not JSON.
    OSError: the file cannot be read.
  """
  try:
    return json.loads(path.read_bytes())
  except RecursionError as error:  # thousands of open brackets, which no program writes
    raise ValueError(f"nested too deep: {error}") from None


def read_json_object(path: Path, way_out: str) -> dict[str, Any]:
  """Reads the object in a JSON file; a missing file is an empty object.

  Args:
    path: the file.
    way_out: what to do if it is damaged, for the message.

  Raises:
    UserError: the file holds something else.
    OSError: the file cannot be read.
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
  """Checks, before long work and not after it, that files can be made in a folder.

  The folder need not exist, and nothing of the trial is left.

  Raises:
    WriteError: no file can be made there.
  """
  existing = folder
  try:
    while not existing.exists():
      existing = existing.parent
    # A real file, since `os.access` does not ask the server of a network file system.
    with tempfile.TemporaryFile(dir=existing):
      pass
  except OSError as error:
    raise WriteError(folder, error, "change its permissions, or name another") from None
