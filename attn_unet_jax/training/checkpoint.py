"""Checkpoints of a run: the latest few, and the best by validation DSC. Orbax does the work.

Every checkpoint is sealed by a digest (`seal.py`) that is verified before it is restored; what is
damaged is named, and another used.
"""

import contextlib
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jax.sharding import Sharding, SingleDeviceSharding
from orbax.checkpoint.checkpoint_managers import (
  AnyPreservationPolicy,
  LatestN,
  PreservationPolicy,
)

from attn_unet_jax.runtime import console, hosts
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.signals import StopRequest, defer_signals
from attn_unet_jax.training import integrity
from attn_unet_jax.training.state import TrainState

_UNFINISHED = ".orbax-checkpoint-tmp"  # what Orbax appends until a checkpoint is complete
_DAMAGED = ".damaged"
# Where a checkpoint is moved, in one step, before its files are removed one by one: a kill among
# them would leave what looks like damage.
_DELETED = "deleted"


class CheckpointStore:
  """The folder `checkpoints/` of a run that is being trained; saving is asynchronous and atomic.

  Several hosts share the folder and all call every method.

  Raises:
    UserError: there are checkpoints, and every one is damaged.
  """

  def __init__(self, folder: Path, keep: int):
    self.folder = folder
    hosts.run_on_primary(_remove_deleted, folder)
    hosts.run_on_primary(_rename_damaged, folder)
    self._scores = {
      step: integrity.read_validation_dsc(folder / str(step)) for step in list_saved_steps(folder)
    }
    self._saving: int | None = None
    self._manager = ocp.CheckpointManager(
      folder.absolute(),
      options=ocp.CheckpointManagerOptions(
        preservation_policy=AnyPreservationPolicy([LatestN(keep), _BestStepPolicy(self._scores)]),
        todelete_subdir=_DELETED,
        cleanup_tmp_directories=True,
        lightweight_initialize=True,
        async_options=ocp.AsyncOptions(post_finalization_callback=self._seal_checkpoint),
      ),
    )

  @property
  def latest_step(self) -> int | None:
    """Step of the newest checkpoint."""
    return self._manager.latest_step()

  @property
  def best_step(self) -> int | None:
    """Step of the checkpoint with the highest validation DSC; the newest if none has one."""
    return next(iter(_rank_steps(self._manager.all_steps(), self._scores)), None)

  def save(self, state: TrainState, validation_dsc: float | None = None) -> None:
    """Begins to save; a step that is saved already only gains its validation DSC.

    Raises:
      UserError: this save or the one before it found no room.
    """
    step = int(state.step)
    with self._explain_disk_errors():
      self._manager.wait_until_finished()
      self._remove_deleted()  # first: there may be room for one checkpoint more, not for two
      again, self._saving = step == self.latest_step, step
      if not again:
        self._scores[step] = validation_dsc
        self._manager.save(step, args=ocp.args.StandardSave(state))
      elif validation_dsc is not None:
        self._scores[step] = validation_dsc
        if hosts.is_primary():
          with self._explain_damage(step):
            integrity.add_validation_dsc(self.folder / str(step), validation_dsc)

  def restore(self, step: int, like: TrainState, sharding: Sharding | None = None) -> TrainState:
    """The state saved at `step`; see the function of this name.

    Raises:
      UserError: it is not what was saved.
    """
    self.wait()
    with self._explain_damage(step):
      return restore_checkpoint(self.folder / str(step), like, sharding)

  def wait(self) -> None:
    """Waits until everything is on disk.

    Raises:
      UserError: the last save found no room.
    """
    with self._explain_disk_errors():
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits until everything is on disk, for the last time.

    Raises:
      UserError: the last save found no room.
    """
    with self._explain_disk_errors():
      self._manager.close()
      self._remove_deleted()

  def _remove_deleted(self) -> None:
    if hosts.is_primary():
      _remove_deleted(self.folder)

  def _seal_checkpoint(self) -> None:
    """Orbax calls this when all is written, before the folder gets its final name.

    On the first host only.
    """
    assert self._saving is not None
    integrity.write_seal(self.folder / f"{self._saving}{_UNFINISHED}", self._scores[self._saving])

  @contextlib.contextmanager
  def _explain_disk_errors(self) -> Iterator[None]:
    try:
      yield
    except (OSError, ValueError, RuntimeError) as error:
      reason = system_error(error)
      if reason is None:
        raise
      raise UserError(
        f"{self.folder}: step {self._saving} could not be saved ({reason}); earlier checkpoints "
        "are as they were. Make room and start again to go on from the newest"
      ) from error

  @contextlib.contextmanager
  def _explain_damage(self, step: int) -> Iterator[None]:
    try:
      yield
    except integrity.DamagedError as error:
      raise UserError(
        f"{self.folder}/{step}: damaged since it was opened or saved ({error}); start again to go "
        "on from the newest that is intact"
      ) from error


class _BestStepPolicy(PreservationPolicy):
  """Keeps the checkpoint with the highest validation DSC, if one has been validated."""

  def __init__(self, scores: dict[int, float | None]):
    self._scores = scores

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
    del context
    scored = [point.step for point in checkpoints if self._scores.get(point.step) is not None]
    best = next(iter(_rank_steps(scored, self._scores)), None)
    return [point.step == best for point in checkpoints]


@contextlib.contextmanager
def open_checkpoints(folder: Path, keep: int) -> Iterator[CheckpointStore]:
  """Opens a run's checkpoints for training and leaves them complete on disk."""
  with _silence_followup_errors():
    store, stop = CheckpointStore(folder, keep), StopRequest()
    try:
      yield store
    finally:
      with defer_signals(stop):  # who stops waiting for a save loses it
        store.close()
    stop.raise_if_stopped()


@contextlib.contextmanager
def _silence_followup_errors() -> Iterator[None]:
  """Leaves unsaid what follows from a write that failed, and is raised.

  A checkpoint is many files. The first that cannot be written ends the event loop that waits for
  all; TensorStore's threads, which bring it the other failures, then print a traceback each, and
  Python warns of files that were not begun.
  """
  say = sys.unraisablehook

  def unless_late(late: Any) -> None:
    if str(late.exc_value) != "Event loop is closed":
      say(late)

  sys.unraisablehook, failed = unless_late, False
  try:
    yield
  except UserError:
    failed = True  # others may still be on their way
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    raise
  finally:
    if not failed:
      sys.unraisablehook = say


def list_saved_steps(folder: Path) -> list[int]:
  """Steps of the complete checkpoints of a folder, ascending."""
  if not folder.is_dir():
    return []
  return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def restore_best(folder: Path, like: TrainState) -> TrainState:
  """The intact state with the highest validation DSC; the newest if none was validated.

  Nothing in the folder is changed, so a run may be in training meanwhile.

  Raises:
    UserError: there is none.
  """
  steps = list_saved_steps(folder)
  if not steps:
    raise UserError(f"{folder}: there is no checkpoint yet; train first")
  scores = {step: integrity.read_validation_dsc(folder / str(step)) for step in steps}
  damaged = {}
  for step in _rank_steps(steps, scores):
    try:
      return restore_checkpoint(folder / str(step), like)
    except integrity.DamagedError as error:
      damaged[step] = str(error)
      console.print_line(f"{folder}/{step} is damaged ({error}): using the next best")
  raise _all_damaged_error(folder, damaged)


def restore_checkpoint(
  path: Path, like: TrainState, sharding: Sharding | None = None
) -> TrainState:
  """The state saved in a folder, whatever devices saved it.

  Args:
    path: the checkpoint.
    like: abstract state, which says what must be there.
    sharding: of every array, on the devices of all hosts, which then all call this; left out, this
      host's first device alone.

  Raises:
    DamagedError: it is not what was saved.
    UserError: it is the state of another network or optimiser than `like`.
  """
  integrity.verify_checkpoint(path)
  _check_fit(path, like)
  here = sharding or SingleDeviceSharding(jax.local_devices()[0])
  target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), like)
  with ocp.StandardCheckpointer() as checkpointer:
    return checkpointer.restore(path.absolute() / "default", target)


def _check_fit(path: Path, like: TrainState) -> None:
  """Before anything is read: Orbax would raise what no user can read, after reading a part."""
  stored = ocp.StandardCheckpointHandler().metadata(path.absolute() / "default").tree
  there, wanted = _map_shapes(stored), _map_shapes(like)
  for name in [*wanted, *there]:
    if there.get(name) != wanted.get(name):
      raise UserError(
        f"{path}: not a state of the network and optimiser of {path.parents[1] / 'config.json'}; "
        f"the first difference is {name}, {there.get(name, 'missing')} there, "
        f"{wanted.get(name, 'missing')} by that config: put back what the run was trained with"
      )


def _map_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  """Shape of every array, by its path."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(at, simple=True, separator="/"): x.shape for at, x in leaves}


def _rank_steps(steps: Iterable[int], scores: dict[int, float | None]) -> list[int]:
  """Best first: by validation DSC, then newest."""

  def rank(step: int) -> tuple[float, int]:
    score = scores.get(step)
    return (-1.0 if score is None else score), step

  return sorted(steps, key=rank, reverse=True)


def _remove_deleted(folder: Path) -> None:
  """Removes what Orbax has moved away, also by a process that was killed; what it can."""
  shutil.rmtree(folder / _DELETED, ignore_errors=True)


def _rename_damaged(folder: Path) -> None:
  """Renames damaged checkpoints, so that their steps can be saved again, unless all are."""
  damaged = {}
  for step in list_saved_steps(folder):
    try:
      integrity.verify_checkpoint(folder / str(step))
    except integrity.DamagedError as error:
      damaged[step] = str(error)
  intact = [step for step in list_saved_steps(folder) if step not in damaged]
  if damaged and not intact:
    raise _all_damaged_error(folder, damaged)
  for step, why in damaged.items():
    aside = _find_free_path(folder / f"{step}{_DAMAGED}")
    (folder / str(step)).rename(aside)
    console.print_line(
      f"{folder}/{step} is damaged ({why}): left as {aside.name}; {intact[-1]} is the newest intact"
    )


def _find_free_path(path: Path) -> Path:
  """The path, or with a number where there is something of that name."""
  number = 1
  while path.exists():
    number += 1
    path = path.with_name(f"{path.name.partition(_DAMAGED)[0]}{_DAMAGED}{number}")
  return path


def _all_damaged_error(folder: Path, damaged: dict[int, str]) -> UserError:
  newest = max(damaged)
  return UserError(
    f"{folder}: every checkpoint is damaged ({newest}: {damaged[newest]}); bring one back from a "
    "backup, or train again in another --workdir"
  )


def system_error(error: BaseException) -> str | None:
  """What the system said, such as 'No space left on device'; None if the fault is another."""
  if isinstance(error, OSError):
    return error.strerror
  code = re.search(r"os_error_code='(\d+)'", str(error))  # TensorStore's
  return os.strerror(int(code[1])) if code else None
