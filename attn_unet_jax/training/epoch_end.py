"""Measures the losses at the end of an epoch on fixed patches, logs them and prints a line."""

import math
import time
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from attn_unet_jax.patches.batch import NetworkInput
from attn_unet_jax.runs import metrics_csv
from attn_unet_jax.runtime import console
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.signals import acknowledge_signals
from attn_unet_jax.training.gate_watch import GateWatch, average_sums
from attn_unet_jax.training.inputs import PARTS
from attn_unet_jax.training.optimizer import build_rate_schedule
from attn_unet_jax.training.options import TrainingRecipe
from attn_unet_jax.training.state import TrainState
from attn_unet_jax.training.step import measure_fixed
from attn_unet_jax.training.watched_patch import WatchedPatch


class ValidationScore(NamedTuple):
  """The mean DSC of a validation, None if no case has one, and the number of scores in it.

  A case has a score for each class: `n` of `cases` have one.
  """

  dsc: float | None
  n: int
  cases: int


class EpochReport:
  """A report of every epoch: its losses, learning rate and times.

  Args:
    recipe: the options of the training.
    module: the network.
    fixed: batches without augmentation, by part of the fold.
    log: the log that gets a line per epoch; None on all hosts but the primary.
  """

  def __init__(
    self,
    recipe: TrainingRecipe,
    module: nn.Module,
    fixed: dict[str, list[NetworkInput]],
    log: metrics_csv.EpochLog | None,
  ):
    self._recipe, self._fixed, self._log = recipe, fixed, log
    self._began, self._patches = time.monotonic(), 0  # of this start
    self._is_compiled = False
    # All batches have one shape, so this compiles once.
    self._measure = jax.jit(
      lambda variables, batch: measure_fixed(recipe, module, variables, batch)
    )
    watched = fixed.get("validation", ()), module.output_margin, recipe.data.spacing_mm
    self._watch, self._patch = GateWatch(*watched), WatchedPatch(*watched)
    self._gates: dict[str, dict[str, float]] = {}

  def measure_epoch(
    self, epoch: int, state: TrainState, seconds: float, steps: int
  ) -> dict[str, Any]:
    """Measures the epoch's row of the log, whose validation DSC is still None.

    Args:
      epoch: the number of the epoch, from 1.
      state: the state after it, on one device.
      seconds: the time that its steps of this start took.
      steps: how many these were.

    Raises:
      UserError: a loss is not finite.
    """
    row = {"epoch": epoch, "train_seconds": seconds, **self._measure_losses(state)}
    row["patches"] = steps * self._recipe.train.batch_size
    # The optimiser's schedule counts updates, not steps; the last one used the rate before.
    updates = int(state.step) - int(state.skipped)
    row["learning_rate"] = float(build_rate_schedule(self._recipe)(max(0, updates - 1)))
    return row | {"validation_dsc": None}

  def write_row(self, row: dict[str, Any], score: ValidationScore | None = None) -> None:
    """Writes the row to the log and prints a line, on the primary host.

    Args:
      row: the row.
      score: the validation of this epoch, if there was one.
    """
    if self._log is not None:
      if self._gates:  # before the epoch's own line, without which it is trained again
        self._log.write_gates(row["epoch"], self._gates)
      self._log.write_epoch(row)
      if score:
        self._log.write_picture(row["epoch"], "validation patch", self._patch.draw)
      self._print_row(row, score)

  def _measure_losses(self, state: TrainState) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for part, column in zip(PARTS, ("train", "validation", "test"), strict=True):
      began = time.monotonic()
      with self._announce_first_part():
        values, sums = [], []
        for number, batch in enumerate(self._fixed[part]):
          value, gates, classes = self._measure(state.variables, batch)
          values.append(float(value))
          if part == "validation":
            sums.append(self._watch.sum_batch(number, gates))
            self._patch.keep(number, classes, gates)
      self._gates = average_sums(sums) or self._gates
      row[f"{column}_seg_loss"] = loss = sum(values) / len(values)
      # The time of the training is the time of its steps, which the caller has measured.
      if part != "training":
        row[f"{column}_seconds"] = time.monotonic() - began
      # Raised before the state is saved, so that the newest checkpoint stays a good one.
      if not math.isfinite(loss):
        raise UserError(
          f"the {part} loss is {loss} after the update of step {int(state.step)}, on patches "
          "without augmentation; earlier checkpoints are as they were. Start another --workdir "
          "with a lower --config.optimizer.learning_rate "
          f"(now {self._recipe.optimizer.learning_rate:g})"
        )
    return row

  def _announce_first_part(self) -> AbstractContextManager[None]:
    """Acknowledges signals while the first losses are measured, which compiles."""
    is_first, self._is_compiled = not self._is_compiled, True
    return acknowledge_signals("compiling the losses") if is_first else nullcontext()

  def _print_row(self, row: dict[str, Any], score: ValidationScore | None) -> None:
    epoch, train = row["epoch"], self._recipe.train
    # To this start only the validation may have been left.
    trained = row["patches"]
    self._patches += trained
    times = [f"{row['train_seconds']:.1f} s"]
    if trained:
      times.append(f"{trained / row['train_seconds']:.3g} patches a second")
    if self._patches:
      # By patches, since of its first epoch a start may train a part alone. Validations included.
      to_come = (train.epochs - epoch) * train.steps_per_epoch * train.batch_size
      left = (time.monotonic() - self._began) / self._patches * to_come
      times.append(f"{console.format_duration(left)} left")
    dsc = f", validation DSC {_format_score(score)}" if score else ""
    console.print_line(
      f"epoch {epoch}/{train.epochs}: loss train {row['train_seg_loss']:.4f}, "
      f"validation {row['validation_seg_loss']:.4f}, test {row['test_seg_loss']:.4f}{dsc}; "
      f"{', '.join(times)}"
    )


def _format_score(score: ValidationScore) -> str:
  if score.dsc is None:
    return (
      f"undefined (n 0 of {score.cases}: no case has a class, so no checkpoint is chosen by it)"
    )
  return f"{score.dsc:.3f} (n {score.n} of {score.cases})"
