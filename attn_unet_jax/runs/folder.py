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
from ml_collections import ConfigDict

from attn_unet_jax.config import stored as stored_config
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.file_lock import LockHeldError, acquire_file_lock
from attn_unet_jax.runtime.files import read_json_object, remove_unfinished_files, write_text

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "nibabel")

STAGES_BEGUN = "body.json"  # what a run in stages makes first

# Keys that say how and where a run is computed and not what: one that goes on may have others.
HOW = (
  *("data.dir", "data.folder", "data.prepared", "data.source", "model.remat"),
  *("train.keep", "train.save_every", "train.skip_nonfinite"),
  *("parallel.data", "parallel.mode", "parallel.space"),
)

_locks: dict[Path, int] = {}  # folders of this process -> files that are open until it ends


def claim(workdir: Path, config: ConfigDict) -> bool:
  """Makes the folder a run of this config; whether it was one before, to be gone on with.

  A run that ended before its first checkpoint has nothing to lose and is begun anew. One that goes
  on may have other values of `HOW`, and a line says which. The folder is this process's until its
  end.

  Raises:
    UserError: it holds a run of another config (says what differs), another process is training
      it, or it cannot be written.
  """
  path = workdir / "config.json"
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    _lock(workdir)  # first: until then another process may be making it a run
    remove_unfinished_files(workdir)
    stored = stored_config.load(path) if path.exists() else None  # a foreign file is refused
    goes_on = stored is not None and begun(workdir)
    if stored is not None and goes_on:
      _compare(workdir, stored, config)
    write_text(path, stored_config.to_json(config))
  except OSError as error:
    raise UserError(f"--workdir={workdir}: cannot be written ({error.strerror})") from None
  return goes_on


def _compare(workdir: Path, stored: ConfigDict, config: ConfigDict) -> None:
  """Refuses a config that computes something else; says what is computed in another way."""
  differing = stored_config.difference(stored, config)
  fixed = {key: values for key, values in differing.items() if not _may_change(key, config)}
  if fixed:
    named = ", ".join(f"{key}: {old!r} there, {new!r} now" for key, (old, new) in fixed.items())
    raise UserError(f"{workdir}: holds a run of another config ({named}); choose another --workdir")
  if differing:
    named = ", ".join(f"{key}={new!r}, was {old!r}" for key, (old, new) in differing.items())
    print(f"{workdir} goes on with {named}", flush=True)


def _may_change(key: str, config: ConfigDict) -> bool:
  """Not the devices, where batch statistics are each device's own."""
  if key == "train.epochs":
    return config.optimizer.schedule != "cosine"  # the others' rates do not know the last epoch
  local = config.parallel.batch_norm == "local"
  return key in HOW and not (local and key.startswith("parallel."))


def _lock(workdir: Path) -> None:
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


def begun(workdir: Path) -> bool:
  """Whether a run, or one in stages, has something to go on with and to lose."""
  folder = workdir / "checkpoints"
  saved = folder.is_dir() and any(entry.name.isdigit() for entry in folder.iterdir())
  return saved or (workdir / STAGES_BEGUN).is_file()


@contextmanager
def recorded(workdir: Path, init: dict[str, Any] | None = None) -> Iterator[None]:
  """Keeps `run.json` while the work inside goes on.

  It says how the last start ended: `exit` is 'running', 'done', or the exception's name; and what
  all starts that could say so took together: `total_wall_seconds`.

  Args:
    workdir: the run.
    init: the run that this one starts from; where it goes on, what was said before stays.
  """
  began = time.monotonic()
  record = {"started": time.strftime("%Y-%m-%dT%H:%M:%S%z"), **environment(), "exit": "running"}
  before = _said_before(workdir) if begun(workdir) else {}
  if init := init or before.get("init"):
    record["init"] = init
  earlier = before.get("total_wall_seconds", 0.0)
  _store(workdir, record | {"total_wall_seconds": earlier})

  def end(how: str) -> None:
    wall = round(time.monotonic() - began, 1)
    ended = {"exit": how, "wall_seconds": wall, "total_wall_seconds": round(earlier + wall, 1)}
    _store(workdir, record | ended | {"peak_memory_bytes": _peak_memory()})

  try:
    yield
  except BaseException as error:
    with suppress(OSError):  # a full disk is told by what it stopped first
      end(f"{type(error).__name__}: {error}")
    raise
  end("done")


def _said_before(workdir: Path) -> dict[str, Any]:
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


def environment() -> dict[str, Any]:
  """Versions, devices, command line and git revision."""
  return {
    "command": sys.argv[1:],
    "python": platform.python_version(),
    "versions": {name: version(name) for name in _PACKAGES},
    "machine": platform.machine(),
    "cpu_count": os.cpu_count(),
    "devices": [f"{device.platform}: {device.device_kind}" for device in jax.devices()],
    "git_revision": _git_revision(),
  }


def _store(workdir: Path, record: dict[str, Any]) -> None:
  write_text(workdir / "run.json", json.dumps(record, indent=2) + "\n")


def _peak_memory() -> dict[str, int]:
  unit = 1 if sys.platform == "darwin" else 1024
  peak = {"host": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit}
  for index, device in enumerate(jax.local_devices()):
    stats = device.memory_stats()
    if stats:
      peak[f"device_{index}"] = stats.get("peak_bytes_in_use", 0)
  return peak


def _git_revision() -> str | None:
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
