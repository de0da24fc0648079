"""A run is one folder: who may write into it, and what it records about itself."""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.file_lock import LockHeldError, acquire_file_lock
from attn_unet_jax.runtime.files import (
  read_json_object,
  write_text,
)

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "nibabel")

STAGES_MARKER = "body.json"  # what a run in stages makes first

_locks: dict[Path, int] = {}  # folders of this process -> files that are open until it ends


def lock_folder(workdir: Path) -> None:
  """Makes the folder this process's until its end, where its file system has locks.

  A run may still be saving when it is started again: both would write its checkpoints.

  Raises:
    UserError: it is another process's.
  """
  if workdir.resolve() in _locks:
    return
  try:
    _locks[workdir.resolve()] = acquire_file_lock(workdir / ".lock")
  except LockHeldError as holder:
    raise UserError(
      f"{workdir}: another process is training it ({holder}); wait for its end or choose another "
      "--workdir"
    ) from None


def has_progress(workdir: Path) -> bool:
  """Whether a run, or one in stages, has something to go on with and to lose."""
  folder = workdir / "checkpoints"
  saved = folder.is_dir() and any(entry.name.isdigit() for entry in folder.iterdir())
  return saved or (workdir / STAGES_MARKER).is_file()


@contextmanager
def record_run(workdir: Path, init: dict[str, Any] | None = None) -> Iterator[None]:
  """Keeps `run.json` while the work inside goes on.

  It says how the last start ended: `exit` is 'running', 'done', or the exception's name; and what
  all starts that could say so took together: `total_wall_seconds`.

  Args:
    workdir: the run.
    init: the run that this one starts from; where it goes on, what was said before stays.
  """
  began = time.monotonic()
  record = {
    "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    **describe_environment(),
    "exit": "running",
  }
  before = _read_previous_record(workdir) if has_progress(workdir) else {}
  if init := init or before.get("init"):
    record["init"] = init
  earlier = before.get("total_wall_seconds", 0.0)
  _write_record(workdir, record | {"total_wall_seconds": earlier})

  def end(how: str) -> None:
    wall = round(time.monotonic() - began, 1)
    ended = {"exit": how, "wall_seconds": wall, "total_wall_seconds": round(earlier + wall, 1)}
    _write_record(workdir, record | ended | {"peak_memory_bytes": _measure_peak_memory()})

  try:
    yield
  except BaseException as error:
    with suppress(OSError):  # a full disk is told by what it stopped first
      end(f"{type(error).__name__}: {error}")
    raise
  end("done")


def _read_previous_record(workdir: Path) -> dict[str, Any]:
  """What earlier starts put on record; what cannot be read is set aside, and a line says so."""
  path, aside = workdir / "run.json", "run.json.damaged"
  what_is_done = f"left as {aside}, a new record begins"
  try:
    before = read_json_object(path, what_is_done)
    total = before.get("total_wall_seconds", 0.0)
    if isinstance(total, (int, float)) and 0 <= total <= sys.float_info.max:
      return before
    said = f"{path}: total_wall_seconds is {total!r}, not a time; {what_is_done}"
  except UserError as error:
    said = str(error)
  path.replace(path.with_name(aside))
  print(said, flush=True)
  return {}


def describe_environment() -> dict[str, Any]:
  """Versions, devices, command line and git revision."""
  return {
    "command": sys.argv[1:],
    "python": platform.python_version(),
    "versions": {name: version(name) for name in _PACKAGES},
    "machine": platform.machine(),
    "cpu_count": os.cpu_count(),
    "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
    "git_revision": _read_git_revision(),
  }


def _write_record(workdir: Path, record: dict[str, Any]) -> None:
  write_text(workdir / "run.json", json.dumps(record, indent=2) + "\n")


def _measure_peak_memory() -> dict[str, int]:
  unit = 1 if sys.platform == "darwin" else 1024
  peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
  for index, device in enumerate(jax.local_devices()):
    stats = device.memory_stats()
    if stats:
      peak[f"device_{index}"] = stats.get("peak_bytes_in_use", 0)
  return peak


def _read_git_revision() -> str | None:
  """Of the program, with '+' if its files were changed; None outside a checkout."""
  here = Path(__file__).parent
  try:
    text = subprocess.run(
      ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"],
      cwd=here,
      capture_output=True,
      text=True,
      check=True,
      timeout=10,
    ).stdout.strip()
  except (OSError, subprocess.SubprocessError):
    return None
  return text or None
