"""Trains the folds of a run side by side, each in a process of its own."""

import collections
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from attn_unet_jax.runs.folder import name_fold
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.workflows.fold_places import FoldPlace

LOG = "train.log"
_COMMAND = [sys.executable, "-m", "attn_unet_jax.workflows.one_fold"]
# Processes and their logs are asked in turn, as there is no one call that waits for both.
_POLL_S = 0.2
_SHOWN = ("epoch ", "warning: ")  # of a log, on the screen
_ERROR = "error: "


class _Training(NamedTuple):
  """A fold at work: its process, where that computes, and its log, read up to what was shown."""

  process: subprocess.Popen[str]
  place: FoldPlace
  log: IO[str]
  errors: list[str]


def train_side_by_side(
  workdir: Path, folds: Sequence[int], places: Sequence[FoldPlace], *, accept_changes: bool
) -> None:
  """Trains folds, or resumes them, one at each place; the next one begins where one is done.

  A fold that fails does not stop the others. A signal reaches all, which save and leave.

  Args:
    workdir: the run of all folds; its `config.json` and `folds.json` are written.
    folds: the numbers of those to train.
    places: where.
    accept_changes: whether changes of the data are accepted, see `open_run_data`.

  Raises:
    UserError: a fold failed by its input.
    RuntimeError: a fold failed otherwise.
  """
  waiting, free = collections.deque(folds), collections.deque(places)
  running: dict[int, _Training] = {}
  failed: dict[int, tuple[int, str]] = {}
  try:
    while waiting or running:
      while waiting and free:
        number = waiting.popleft()
        running[number] = _start(workdir, number, free.popleft(), accept_changes)
      for number, one in list(running.items()):
        status = one.process.poll()  # before the log, which then is complete
        _show_progress(number, one)
        if status is None:
          continue
        del running[number]
        free.append(one.place)
        _close(one)
        if status:
          failed[number] = status, _explain_status(status, one.errors)
          print_line(f"fold {number}: failed, {failed[number][1]}; the other folds go on")
        else:
          print_line(f"fold {number}: is finished")
      time.sleep(_POLL_S)
  finally:
    _stop(running)
  if failed:
    _raise_failed(workdir, failed)


def _start(workdir: Path, number: int, place: FoldPlace, accept_changes: bool) -> _Training:
  folder = workdir / name_fold(number)
  folder.mkdir(exist_ok=True)
  path = folder / LOG
  # Appended: what an earlier start said may explain why it was stopped.
  with path.open("a", encoding="utf-8") as written:
    end = written.tell()  # before the process, which shares the file's position
    process = subprocess.Popen(
      _COMMAND,
      stdin=subprocess.PIPE,
      stdout=written,
      stderr=subprocess.STDOUT,
      text=True,
      # Ctrl-C in a terminal reaches the group that is in the foreground: it is passed on once.
      start_new_session=True,
    )
  assert process.stdin is not None
  asked = {"workdir": str(workdir), "fold": number, "gpu": place.gpu, "cores": place.cores}
  asked |= {"accept_changes": accept_changes, "command": sys.argv[1:]}
  try:
    process.stdin.write(f"{json.dumps(asked)}\n")
    process.stdin.flush()
  except BrokenPipeError:  # it has ended already, and its status says more
    pass
  print_line(f"fold {number}: on {place.name}, see {path}")
  # Libraries in C write into it too, in whatever encoding.
  log = path.open(encoding="utf-8", errors="replace")
  log.seek(end)
  return _Training(process, place, log, [])


def _show_progress(number: int, one: _Training) -> None:
  while True:
    at = one.log.tell()
    line = one.log.readline()
    if not line.endswith("\n"):  # which is not written to its end
      one.log.seek(at)
      return
    if line.startswith(_SHOWN):
      print_line(f"fold {number}: {line.rstrip()}")
    elif line.startswith(_ERROR):
      one.errors.append(line.removeprefix(_ERROR).rstrip())


def _explain_status(status: int, errors: Sequence[str]) -> str:
  if errors:
    return errors[-1]
  return f"killed by signal {-status}" if status < 0 else f"status {status}"


def _raise_failed(workdir: Path, failed: Mapping[int, tuple[int, str]]) -> None:
  reasons = "; ".join(f"fold {number}: {why}" for number, (_, why) in sorted(failed.items()))
  text = (
    f"{workdir}: {len(failed)} of its folds failed ({reasons}); {LOG} in the folder of each has "
    "more. Start again to go on with them"
  )
  # Bad input, or a fold that somebody stopped.
  if all(status in (2, 130, 143) for status, _ in failed.values()):
    raise UserError(text)
  raise RuntimeError(text)


def _stop(running: Mapping[int, _Training]) -> None:
  """Asks the folds that are at work to save and leave, and waits until they have."""
  if not running:
    return
  print_line(f"stopping {len(running)} folds: each saves and leaves")
  # All are asked before any is waited for, so that they save at the same time.
  for one in running.values():
    one.process.terminate()
  for one in running.values():
    one.process.wait()
    _close(one)


def _close(one: _Training) -> None:
  one.log.close()
  if one.process.stdin:
    # Of a process that ended before it was asked, the line is tried once more, again in vain.
    with contextlib.suppress(BrokenPipeError):
      one.process.stdin.close()
