"""The end of an epoch: losses on fixed patches, validation on whole scans, log, a line."""

import math
import time
from typing import Any

import jax
from flax import linen as nn

from attn_unet_jax.patches.batch import NetworkInput
from attn_unet_jax.runs import metrics_csv
from attn_unet_jax.runtime import console
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.inputs import PARTS
from attn_unet_jax.training.optimizer import build_rate_schedule
from attn_unet_jax.training.options import TrainingRecipe
from attn_unet_jax.training.state import TrainState
from attn_unet_jax.training.step import fixed_loss


class EpochReport:
  """Measures and writes what an epoch reached.

  Args:
    recipe: what the training reads.
    module: the network.
    fixed: batches by part of the fold, not augmented.
    log: where a line per epoch goes; on the first host.
    epochs_done: before this start.
  """

  def __init__(
    self,
    recipe: TrainingRecipe,
    module: nn.Module,
    fixed: dict[str, list[NetworkInput]],
    log: metrics_csv.EpochLog | None,
    epochs_done: int,
  ):
    self._recipe, self._fixed, self._log = recipe, fixed, log
    self._began, self._first = time.monotonic(), epochs_done
    self._measure = jax.jit(lambda variables, batch: fixed_loss(recipe, module, variables, batch))

  def measure_epoch(self, epoch: int, state: TrainState, seconds: float) -> dict[str, Any]:
    """The epoch's row of the log, not validated yet.

    Args:
      epoch: number of the epoch, from 1.
      state: what it reached, on one device.
      seconds: that its steps took.

    Raises:
      UserError: a loss is not finite.
    """
    row = {"epoch": epoch, "train_seconds": seconds, **self._measure_losses(state)}
    updates = int(state.step) - int(state.skipped)  # what the optimiser's schedule counts
    row["learning_rate"] = float(build_rate_schedule(self._recipe)(max(0, updates - 1)))
    return row | {"validation_dsc": None}

  def write_row(self, row: dict[str, Any]) -> None:
    """Writes the row and says a line, on the first host."""
    if self._log is not None:
      self._log.write_epoch(row)
      self._print_row(row)

  def _measure_losses(self, state: TrainState) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for part, column in zip(PARTS, ("train", "validation", "test"), strict=True):
      began = time.monotonic()
      values = [float(self._measure(state.variables, batch)) for batch in self._fixed[part]]
      row[f"{column}_seg_loss"] = loss = sum(values) / len(values)
      if part != "training":  # the training's time is that of its steps
        row[f"{column}_seconds"] = time.monotonic() - began
      if not math.isfinite(loss):
        raise UserError(
          f"the {part} loss is {loss} after the update of step {int(state.step)}, on patches "
          "without augmentation; earlier checkpoints are as they were. Start another --workdir "
          "with a lower --config.optimizer.learning_rate "
          f"(now {self._recipe.optimizer.learning_rate:g})"
        )
    return row

  def _print_row(self, row: dict[str, Any]) -> None:
    epoch, epochs = row["epoch"], self._recipe.train.epochs
    left = (time.monotonic() - self._began) / (epoch - self._first) * (epochs - epoch)
    dsc = "" if row["validation_dsc"] is None else f", validation DSC {row['validation_dsc']:.3f}"
    console.print_line(
      f"epoch {epoch}/{epochs}: loss train {row['train_seg_loss']:.4f}, "
      f"validation {row['validation_seg_loss']:.4f}, test {row['test_seg_loss']:.4f}{dsc}; "
      f"{row['train_seconds']:.1f} s, {console.format_duration(left)} left"
    )
