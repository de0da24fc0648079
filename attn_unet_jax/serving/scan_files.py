"""Keeps the scans that clients send, in folders that only this process uses, until they expire."""

import os
import shutil
import threading
import time
import uuid
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO

from attn_unet_jax.runtime.console import escape_controls
from attn_unet_jax.serving.errors import RequestError

SENT = "sent"  # the folder of a job's scan, which goes once there is an answer
_SUFFIXES = (".nii.gz", ".nii", ".zip")
_LONGEST_NAME = 255
_MAX_HELD = 32  # scans of viewers, so that these cannot fill the disk


@dataclass(frozen=True)
class SentFile:
  """A file of a request: the name that the client gives it, and its content."""

  name: str
  content: IO[bytes]


@dataclass(frozen=True)
class SentScan:
  """A scan of a client.

  Attributes:
    path: its file, or the folder of its slices.
    name: what the client calls it.
  """

  path: Path
  name: str


@dataclass
class _HeldScan:
  scan: SentScan
  used: float = field(default_factory=time.monotonic)


def save_scan(files: Sequence[SentFile], folder: Path) -> SentScan:
  """Writes what a client sends into a folder: a NIfTI file, a .zip, or many slices of a series.

  Raises:
    RequestError: there is nothing, or its name says that it is something else.
  """
  if not files:
    raise RequestError(422, "no file: send a NIfTI file, or a .zip of a DICOM series, as `file`")
  name = _clean_name(files[0].name)
  if len(files) > 1:
    path = folder / "series"
    path.mkdir()
    for number, file in enumerate(files):
      # Two files of a client may have one name, and a name may be a path.
      _write(file.content, path / f"{number}.dcm")
    return SentScan(path, f"{name} and {len(files) - 1} more")
  suffix = next((end for end in _SUFFIXES if name.lower().endswith(end)), None)
  if suffix is None:
    raise RequestError(
      415, f"{name or 'a file without a name'}: send .nii, .nii.gz, or a .zip of a DICOM series"
    )
  # The client's own name never becomes one here.
  path = folder / f"scan{suffix}"
  _write(files[0].content, path)
  return SentScan(path, name)


def _clean_name(name: str) -> str:
  """Returns a client's name of a file as it may stand in a line; it never is a path here."""
  # Of a long name the end, which has the suffix.
  return escape_controls(PurePosixPath(name).name)[-_LONGEST_NAME:]


def _write(content: IO[bytes], path: Path) -> None:
  with path.open("wb") as file:
    shutil.copyfileobj(content, file)


class ScanFiles:
  """Keeps scans by a key, such as that of a session, until nobody has used them for a while.

  Args:
    folder: an empty folder.
    expiry_seconds: for how long an unused scan is kept.
  """

  def __init__(self, folder: Path, expiry_seconds: float):
    self._folder, self._expiry = folder, expiry_seconds
    self._held: dict[Hashable, _HeldScan] = {}
    self._lock = threading.Lock()

  def add(self, key: Hashable, files: Sequence[SentFile]) -> SentScan:
    """Keeps a scan, in the place of an earlier one of the same key.

    Raises:
      RequestError: as of `save_scan`, or too many are kept.
    """
    # Before the scan is written, and again when its place is taken.
    self._check_room(key)
    # A new one: the earlier scan of this key may be lent just now.
    folder = self._folder / uuid.uuid4().hex
    folder.mkdir()
    try:
      scan = save_scan(files, folder)
      with self._lock:  # so that two that come at once do not both get the last place
        self._check_room(key)
        earlier, self._held[key] = self._held.get(key), _HeldScan(scan)
    except BaseException:
      shutil.rmtree(folder, ignore_errors=True)
      raise
    if earlier:
      _remove(earlier)
    return scan

  def find(self, key: Hashable) -> SentScan | None:
    """Returns a scan, which then is kept for as long again; None if there is none."""
    with self._lock:
      return self._find(key)

  def _find(self, key: Hashable) -> SentScan | None:
    held = self._held.get(key)
    if held is None:
      return None
    held.used = time.monotonic()
    return held.scan

  def lend(self, key: Hashable, folder: Path) -> SentScan | None:
    """Returns a scan with files of its own in a folder; None if there is none.

    They stay when the scan that is kept expires, is removed, or makes way for another one.
    """
    # To the last link: what removes a scan has taken it out before, under the same lock.
    with self._lock:
      scan = self._find(key)
      if scan is None:
        return None
      target = folder / scan.path.name
      if scan.path.is_dir():
        target.mkdir()
        for slice_file in scan.path.iterdir():
          _link(slice_file, target / slice_file.name)
      else:
        _link(scan.path, target)
    return SentScan(target, scan.name)

  def remove(self, key: Hashable) -> SentScan | None:
    """Removes a scan; returns it as it was, or None."""
    with self._lock:
      held = self._held.pop(key, None)
    if held is None:
      return None
    _remove(held)
    return held.scan

  def remove_expired(self) -> None:
    """Removes the scans that nobody has used for the time."""
    now = time.monotonic()
    with self._lock:
      old = [key for key, held in self._held.items() if now - held.used > self._expiry]
    # Outside the lock, which `remove` takes itself.
    for key in old:
      self.remove(key)

  def _check_room(self, key: Hashable) -> None:
    if len(self._held) >= _MAX_HELD and key not in self._held:
      raise RequestError(503, f"{_MAX_HELD} scans are kept already; send this one again later")

  def __len__(self) -> int:
    """Returns how many scans are kept."""
    return len(self._held)


def _link(source: Path, target: Path) -> None:
  """Gives a file a second name, which takes no room; copies it where the disk has no such links."""
  try:
    os.link(source, target)
  except OSError:
    # On a full disk this one fails, and says so.
    shutil.copyfile(source, target)


def _remove(held: _HeldScan) -> None:
  shutil.rmtree(held.scan.path.parent, ignore_errors=True)
