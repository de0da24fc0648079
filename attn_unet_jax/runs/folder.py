"""Locks the folder of a run and records in `run.json` how its starts ended."""

import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.file_lock import LockHeldError, acquire_file_lock
from attn_unet_jax.runtime.files import read_json, read_json_object, write_text
from attn_unet_jax.runtime.signals import StopRequest, defer_signals, obey_first_signal

# Those whose version can change a result, or whether a checkpoint opens.
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "nibabel")

STAGES_MARKER = "body.json"  # the first file that a run in stages writes
_FOLD = "fold_"  # and its number: the folder of one fold in a run of all folds

# Folder -> its open lock file. The lock lasts as long as the file is open, so it is never closed.
_locks: dict[Path, int] = {}
# Folder -> what tells it from another folder that later has its name.
_identities: dict[Path, tuple[int, int]] = {}


def lock_folder(workdir: Path) -> None:
  """Locks the folder for this process until the process ends.

  A run may still be saving when it is started again; without a lock both processes would write its
  checkpoints. On a file system without locks this does nothing.

  Raises:
    UserError: another process holds the lock.
  """
  # A process may open its own run several times: a second lock on the file would refuse the first.
  if workdir.resolve() in _locks:
    return
  try:
    _locks[workdir.resolve()] = acquire_file_lock(workdir / ".lock")
    _identities[workdir.resolve()] = _identify(workdir)
  except LockHeldError as holder:
    raise UserError(
      f"{workdir}: another process is training it ({holder}); wait for its end or choose another "
      "--workdir"
    ) from None


def name_fold(number: int) -> str:
  """Returns the name of a fold's folder in a run of all folds."""
  return f"{_FOLD}{number}"


def has_progress(workdir: Path) -> bool:
  """Returns whether a run, plain, in stages or of all folds, has work to be resumed or lost."""
  folder = workdir / "checkpoints"
  # Only complete checkpoints have a number as their name; see `training.checkpoint`.
  saved = folder.is_dir() and any(entry.name.isdigit() for entry in folder.iterdir())
  if saved or (workdir / STAGES_MARKER).is_file():
    return True
  # Folds that were trained one by one may lie in any folder, and are no progress of its run.
  return _may_have_all_folds(workdir) and any(
    has_progress(fold) for fold in workdir.glob(f"{_FOLD}*") if fold.is_dir()
  )


def _may_have_all_folds(workdir: Path) -> bool:
  """Returns whether the config is that of a run of all folds, or so damaged that it may be."""
  try:
    config = read_json(workdir / "config.json")
  except (FileNotFoundError, NotADirectoryError):
    return False
  except (OSError, ValueError):
    return True
  data = config.get("data") if isinstance(config, dict) else None
  return not isinstance(data, dict) or data.get("fold") == "all"


@contextmanager
def record_run(
  workdir: Path,
  init: dict[str, Any] | None = None,
  data_changes: str = "",
  accepted: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[None]:
  """Records in `run.json` the environment, the duration and the end of the work inside.

  `exit` says how the last start ended: 'running', 'done', or the name and text of an exception.
  `total_wall_seconds` adds up all starts that reached their end, whether with success or not.

  Args:
    workdir: the folder of the run.
    init: the record of the run that this one starts from; a resumed run keeps its earlier record.
    data_changes: what has changed of the data since the run began, if that was accepted; it is
      recorded beside the changes of earlier starts.
    accepted: the reasons that the user accepts, and the findings about scans that were accepted for
      them. These may grow while the work goes on; a resumed run keeps those of its earlier starts.
  """
  began = time.monotonic()
  record = {
    "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    **describe_environment(),
    "exit": "running",
  }
  # A run that begins anew in a folder has nothing to do with what was recorded there.
  before = _read_previous_record(workdir) if has_progress(workdir) else {}
  if init := init or before.get("init"):
    record["init"] = init
  changes = list(before.get("accepted_data_changes") or ())
  if data_changes:
    changes.append({"started": record["started"], "changes": data_changes})
  if changes:
    record["accepted_data_changes"] = changes
  earlier_accepted = before.get("accepted")
  earlier = before.get("total_wall_seconds", 0.0)

  def describe_accepted() -> dict[str, Any]:
    """Returns what was accepted until now, with that of earlier starts."""
    found = _join_lists(earlier_accepted, accepted or {})
    return {"accepted": found} if any(found.values()) else {}

  def finish_record(reason: str) -> None:
    """Writes how the work ended, and how long it took."""
    wall = round(time.monotonic() - began, 1)
    record.update(describe_accepted())
    ended = {"exit": reason, "wall_seconds": wall, "total_wall_seconds": round(earlier + wall, 1)}
    _write_record(workdir, record | ended | {"peak_memory_bytes": _measure_peak_memory()})

  # A second signal must not break off the record of the first, nor of any other end.
  with obey_first_signal():
    try:
      # Written before the work: a process that is killed leaves 'running'.
      _write_record(workdir, record | describe_accepted() | {"total_wall_seconds": earlier})
      yield
    except BaseException as error:
      # If the disk is full, the error that stopped the run says so; a second one would hide it.
      with defer_signals(StopRequest()), suppress(OSError):
        finish_record(f"{type(error).__name__}: {error}")
      raise
    _require_same_folder(workdir)
    stop = StopRequest()
    with defer_signals(stop):
      finish_record("done")
    # The signal came while the end was recorded: the run is done, and the process stops as asked.
    stop.raise_if_stopped()


def _require_same_folder(workdir: Path) -> None:
  """Refuses to call a run done whose folder was removed, or replaced, while it was trained."""
  began_in = _identities.get(workdir.resolve())
  with suppress(FileNotFoundError):
    # A folder that nobody locked, such as a test's, is known by its path alone.
    if began_in in (None, _identify(workdir)):
      return
  raise UserError(
    f"{workdir}: removed or replaced while the run was at work, with what it had written; bring "
    "the folder back and start again"
  )


def _identify(folder: Path) -> tuple[int, int]:
  about = folder.stat()
  # A path stays what it was if the folder is replaced; this does not.
  return about.st_dev, about.st_ino


def _join_lists(earlier: Any, now: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
  """Returns the lists of two records by key, each text once; what is damaged is left out."""
  before = earlier if isinstance(earlier, dict) else {}
  old = {key: value for key, value in before.items() if isinstance(value, list)}
  return {
    key: list(dict.fromkeys([*map(str, old.get(key, [])), *now.get(key, [])]))
    for key in {**old, **now}
  }


def _read_previous_record(workdir: Path) -> dict[str, Any]:
  """Returns the record of earlier starts; renames an unreadable one, prints why, returns {}."""
  path, aside = workdir / "run.json", "run.json.damaged"
  what_is_done = f"left as {aside}, a new record begins"
  try:
    before = read_json_object(path, what_is_done)
    total = before.get("total_wall_seconds", 0.0)
    # JSON also holds NaN, infinity, and integers that no float can hold.
    if isinstance(total, (int, float)) and 0 <= total <= sys.float_info.max:
      return before
    said = f"{path}: total_wall_seconds is {total!r}, not a time; {what_is_done}"
  except UserError as error:
    said = str(error)
  path.replace(path.with_name(aside))
  print_line(said)
  return {}


def describe_environment() -> dict[str, Any]:
  """Returns versions, devices, command line and git revision."""
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
  """Measures the peak memory in bytes of this process and of each local device."""
  # macOS reports bytes, Linux KiB.
  unit = 1 if sys.platform == "darwin" else 1024
  peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
  for index, device in enumerate(jax.local_devices()):
    stats = device.memory_stats()  # None on the CPU
    if stats:
      peak[f"device_{index}"] = stats.get("peak_bytes_in_use", 0)
  return peak


def _read_git_revision() -> str | None:
  """Reads the program's git revision, with '+' if files were changed; None outside a checkout."""
  # The revision of the program, wherever it is started.
  here = Path(__file__).parent
  try:
    text = subprocess.run(
      # Every tag excluded leaves the revision itself.
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
