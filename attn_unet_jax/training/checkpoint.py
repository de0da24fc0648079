"""Saves and restores the checkpoints of a run: the latest few, and the best by validation DSC.

Orbax reads and writes them. Every checkpoint has a seal (`integrity.py`) that is verified before it
is restored; a damaged checkpoint is reported and another one is used.
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

_UNFINISHED = ".orbax-checkpoint-tmp"  # the suffix that Orbax removes from a complete checkpoint
_DAMAGED = ".damaged"
# A checkpoint is moved here in one step before its files are removed one by one. If it stayed in
# its place, a kill among them would leave what looks like damage.
_DELETED = "deleted"


class CheckpointStore:
  """The checkpoints of a run in training, which are saved asynchronously and atomically.

  Several hosts share the folder, and all of them call every method.

  Args:
    folder: the folder `checkpoints/` of the run.
    keep: the number of latest checkpoints that are kept, besides the best.

  Raises:
    UserError: there are checkpoints, and every one is damaged.
  """

  def __init__(self, folder: Path, keep: int):
    self.folder = folder
    # Before Orbax lists the folder, which takes every number for a checkpoint.
    hosts.run_on_primary(_remove_deleted, folder)
    hosts.run_on_primary(_rename_damaged, folder)
    # By step. The policy below reads it as well, so it must stay one and the same dict.
    self._scores = {
      step: integrity.read_validation_dsc(folder / str(step)) for step in list_saved_steps(folder)
    }
    # The step that is being saved, for its seal and for messages.
    self._saving: int | None = None
    self._manager = ocp.CheckpointManager(
      folder.absolute(),
      options=ocp.CheckpointManagerOptions(
        preservation_policy=AnyPreservationPolicy([LatestN(keep), _BestStepPolicy(self._scores)]),
        todelete_subdir=_DELETED,
        cleanup_tmp_directories=True,  # the unfinished checkpoints of a killed process
        lightweight_initialize=True,
        async_options=ocp.AsyncOptions(post_finalization_callback=self._seal_checkpoint),
      ),
    )

  @property
  def latest_step(self) -> int | None:
    """Returns the step of the newest checkpoint; None if there is none."""
    result: int | None = self._manager.latest_step()
    return result

  @property
  def best_step(self) -> int | None:
    """Returns the step with the highest validation DSC; the newest if none was validated."""
    return next(iter(rank_steps(self._manager.all_steps(), self._scores)), None)

  def save(self, state: TrainState, validation_dsc: float | None = None) -> None:
    """Begins to save a state; a step that is saved already only gains its validation DSC.

    Raises:
      UserError: this save or the one before it failed, for example because the disk is full; or
        the folder has vanished.
    """
    step = int(state.step)
    # Orbax would make the folder again, and the run would end as if all of it were there.
    if hosts.is_primary() and not self.folder.is_dir():
      raise UserError(
        f"{self.folder}: gone, with the checkpoints in it, since the run began or was resumed; "
        f"step {step} is not saved. Bring the folder back, or train again"
      )
    with self._explain_disk_errors():
      # One save at a time: `_saving` names its step.
      self._manager.wait_until_finished()
      # Before saving: there may be room for one more checkpoint, but not for two.
      self._remove_deleted()
      is_saved, self._saving = step == self.latest_step, step
      if not is_saved:
        self._scores[step] = validation_dsc
        self._manager.save(step, args=ocp.args.StandardSave(state))
      elif validation_dsc is not None:
        self._scores[step] = validation_dsc
        if hosts.is_primary():  # the hosts share the folder
          with self._explain_damage(step):
            integrity.add_validation_dsc(self.folder / str(step), validation_dsc)

  def restore(self, step: int, like: TrainState, sharding: Sharding | None = None) -> TrainState:
    """Restores the state saved at `step`, see `restore_checkpoint`.

    Raises:
      UserError: the checkpoint is not what was saved.
    """
    self.wait()
    with self._explain_damage(step):
      return restore_checkpoint(self.folder / str(step), like, sharding)

  def wait(self) -> None:
    """Waits until everything is on disk.

    Raises:
      UserError: the last save failed.
    """
    with self._explain_disk_errors():
      self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits until everything is on disk and ends the threads that save.

    Raises:
      UserError: the last save failed.
    """
    with self._explain_disk_errors():
      self._manager.close()
      self._remove_deleted()

  def _remove_deleted(self) -> None:
    if hosts.is_primary():
      _remove_deleted(self.folder)

  def _seal_checkpoint(self) -> None:
    """Seals the checkpoint that is being saved.

    Orbax calls this on the primary host when all files are written, before the folder gets its
    final name.
    """
    assert self._saving is not None
    integrity.write_seal(self.folder / f"{self._saving}{_UNFINISHED}", self._scores[self._saving])

  @contextlib.contextmanager
  def _explain_disk_errors(self) -> Iterator[None]:
    """Turns an error of the system within this context into a UserError."""
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
    """Turns a DamagedError within this context into a UserError."""
    try:
      yield
    except integrity.DamagedError as error:
      raise UserError(
        f"{self.folder}/{step}: damaged since it was opened or saved ({error}); start again to go "
        "on from the newest that is intact"
      ) from error


class _BestStepPolicy(PreservationPolicy):
  """A policy that keeps the checkpoint with the highest validation DSC, if there is one."""

  def __init__(self, scores: dict[int, float | None]):
    self._scores = scores

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
    """Returns whether each checkpoint is the best one."""
    del context
    # Orbax asks again at each save, with the checkpoints that there are then.
    scored = [point.step for point in checkpoints if self._scores.get(point.step) is not None]
    best = next(iter(rank_steps(scored, self._scores)), None)
    return [point.step == best for point in checkpoints]


@contextlib.contextmanager
def open_checkpoints(folder: Path, keep: int) -> Iterator[CheckpointStore]:
  """Opens a run's checkpoints for training and leaves them complete on disk."""
  with _silence_followup_errors():
    store, stop = CheckpointStore(folder, keep), StopRequest()
    try:
      yield store
    finally:
      with defer_signals(stop):  # an interrupted wait would lose the save
        store.close()
    stop.raise_if_stopped()


@contextlib.contextmanager
def _silence_followup_errors() -> Iterator[None]:
  """Silences the errors that follow from a failed write, which is itself raised.

  A checkpoint is many files. The first file that cannot be written ends the event loop that waits
  for all of them. TensorStore's threads, which report the other failures to that loop, then print a
  traceback each, and Python warns of files whose writing had not begun.
  """
  report = sys.unraisablehook

  def report_unless_late(late: Any) -> None:
    """Reports an error, unless the closed event loop is its cause."""
    if str(late.exc_value) != "Event loop is closed":
      report(late)

  sys.unraisablehook, failed = report_unless_late, False
  try:
    yield
  except UserError:
    failed = True  # the hook stays, since more failures may still be reported
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    raise
  finally:
    if not failed:
      sys.unraisablehook = report


def list_saved_steps(folder: Path) -> list[int]:
  """Lists the steps of the complete checkpoints of a folder, in ascending order."""
  if not folder.is_dir():
    return []
  return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def restore_checkpoint(
  path: Path, like: TrainState, sharding: Sharding | None = None
) -> TrainState:
  """Restores the state saved in a folder, whatever devices saved it.

  Args:
    path: the checkpoint.
    like: the abstract state that the checkpoint must hold.
    sharding: the sharding of every array over the devices of all hosts, which then must all call
      this; by default the first device of this host.

  Raises:
    DamagedError: the checkpoint is not what was saved.
    UserError: it holds the state of another network or optimiser than `like`.
  """
  integrity.verify_checkpoint(path)
  _check_fit(path, like)
  target_sharding = sharding or SingleDeviceSharding(jax.local_devices()[0])
  target = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=target_sharding), like
  )
  with ocp.StandardCheckpointer() as checkpointer:
    result: TrainState = checkpointer.restore(path.absolute() / "default", target)
    return result


def _check_fit(path: Path, like: TrainState) -> None:
  """Checks that a checkpoint holds arrays with the paths and shapes of `like`.

  Raises:
    UserError: it does not; names the first difference.
  """
  # Orbax itself would read a part first, and then raise an error that no user understands.
  stored = ocp.StandardCheckpointHandler().metadata(path.absolute() / "default").tree
  found, wanted = _map_shapes(stored), _map_shapes(like)
  for name in [*wanted, *found]:
    if found.get(name) != wanted.get(name):
      raise UserError(
        f"{path}: not a state of the network and optimiser of {path.parents[1] / 'config.json'}; "
        f"the first difference is {name}, {found.get(name, 'missing')} there, "
        f"{wanted.get(name, 'missing')} by that config: put back what the run was trained with"
      )


def _map_shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  """Maps the path of every array to its shape."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {
    jax.tree_util.keystr(path_keys, simple=True, separator="/"): x.shape for path_keys, x in leaves
  }


def rank_steps(steps: Iterable[int], scores: dict[int, float | None]) -> list[int]:
  """Ranks steps by validation DSC, the best first; among equals the newest is first."""

  def sort_key(step: int) -> tuple[float, int]:
    """Returns what a step is compared by."""
    score = scores.get(step)
    # A DSC is at least 0, so any validated step is better than one that was not.
    return (-1.0 if score is None else score), step

  return sorted(steps, key=sort_key, reverse=True)


def _remove_deleted(folder: Path) -> None:
  """Removes checkpoints that Orbax has moved away, those of a killed process included."""
  # What cannot be removed only takes room, so it is no reason to stop the run.
  shutil.rmtree(folder / _DELETED, ignore_errors=True)


def _rename_damaged(folder: Path) -> None:
  """Renames damaged checkpoints, so that their steps can be saved again.

  Raises:
    UserError: every checkpoint is damaged; nothing is renamed then.
  """
  damaged = {}
  for step in list_saved_steps(folder):
    try:
      integrity.verify_checkpoint(folder / str(step))
    except integrity.DamagedError as error:
      damaged[step] = str(error)
  intact = [step for step in list_saved_steps(folder) if step not in damaged]
  if damaged and not intact:
    raise make_all_damaged_error(folder, damaged)
  for step, why in damaged.items():
    aside = _find_free_path(folder / f"{step}{_DAMAGED}")
    (folder / str(step)).rename(aside)
    console.print_line(
      f"{folder}/{step} is damaged ({why}): left as {aside.name}; {intact[-1]} is the newest intact"
    )


def _find_free_path(path: Path) -> Path:
  """Returns the path, or the path with a number if there is something of that name."""
  number = 1
  while path.exists():
    number += 1
    path = path.with_name(f"{path.name.partition(_DAMAGED)[0]}{_DAMAGED}{number}")
  return path


def make_all_damaged_error(folder: Path, damaged: dict[int, str]) -> UserError:
  """Makes the error of a folder in which every checkpoint is damaged; why, by step."""
  # One reason is enough: the newest is the checkpoint that the user wants back.
  newest = max(damaged)
  return UserError(
    f"{folder}: every checkpoint is damaged ({newest}: {damaged[newest]}); bring one back from a "
    "backup, or train again in another --workdir"
  )


def system_error(error: BaseException) -> str | None:
  """Returns the system's reason, such as 'No space left on device'; None for other errors."""
  if isinstance(error, OSError):
    return error.strerror
  code = re.search(r"os_error_code='(\d+)'", str(error))  # in a text of TensorStore
  return os.strerror(int(code[1])) if code else None
