"""Reads a run's checkpoints for use, while the run may be training and replace them."""

from pathlib import Path

from attn_unet_jax.runtime import console
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training import integrity
from attn_unet_jax.training.checkpoint import (
  list_saved_steps,
  make_all_damaged_error,
  rank_steps,
  restore_checkpoint,
)
from attn_unet_jax.training.state import TrainState

# A training replaces its best checkpoint once in a validation: a second time is rare already.
_LISTINGS = 3


class _GoneError(Exception):
  """A checkpoint that was listed is not there any more."""


def restore_best(folder: Path, like: TrainState) -> TrainState:
  """Restores the intact state with the highest validation DSC; the newest if none was validated.

  The folder is not changed, so its run may be training meanwhile. Where that has removed a
  checkpoint since they were listed, they are listed and ranked anew.

  Raises:
    UserError: there is no checkpoint, or every one is damaged or removed before it is read.
  """
  for _ in range(_LISTINGS):
    try:
      return _restore_best_listed(folder, like)
    except _GoneError as error:
      gone = error
  raise UserError(
    f"{folder}: its run removed checkpoints {_LISTINGS} times while they were read, the last was "
    f"{gone}; start again"
  )


def restore_step(folder: Path, step: int, like: TrainState) -> TrainState:
  """Restores the state of one step. The folder is not changed.

  Raises:
    UserError: there is no checkpoint of that step, or it is damaged.
  """
  steps = list_saved_steps(folder)
  if step not in steps:
    there = f"there are those of {', '.join(map(str, steps))}" if steps else "there is none yet"
    raise UserError(f"{folder}: no checkpoint of step {step}; {there}")
  try:
    return _restore_listed(folder / str(step), like)
  except integrity.DamagedError as error:
    raise UserError(f"{folder}/{step}: damaged ({error}); name another checkpoint") from error
  except _GoneError:
    raise UserError(
      f"{folder}: no checkpoint of step {step} any more, the run has removed it; name another one"
    ) from None


def _restore_best_listed(folder: Path, like: TrainState) -> TrainState:
  """Restores the best of the checkpoints that are there now; raises _GoneError if one goes."""
  steps = list_saved_steps(folder)
  if not steps:
    raise UserError(f"{folder}: there is no checkpoint yet; train first")
  scores = {step: integrity.read_validation_dsc(folder / str(step)) for step in steps}
  # One that went before its score was read would be ranked last, and not missed.
  if gone := [step for step in steps if not (folder / str(step)).is_dir()]:
    raise _GoneError(gone[0])
  damaged = {}
  for step in rank_steps(steps, scores):
    try:
      return _restore_listed(folder / str(step), like)
    except integrity.DamagedError as error:
      damaged[step] = str(error)
      console.print_line(f"{folder}/{step} is damaged ({error}): using the next best")
  raise make_all_damaged_error(folder, damaged)


def _restore_listed(path: Path, like: TrainState) -> TrainState:
  """Restores a checkpoint that was listed; raises _GoneError if its folder is gone."""
  try:
    return restore_checkpoint(path, like)
  # TensorStore says by a ValueError that a file is not there.
  except (integrity.DamagedError, FileNotFoundError, ValueError) as error:
    if path.is_dir():
      raise
    raise _GoneError(path.name) from error
