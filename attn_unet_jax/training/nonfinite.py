"""Watches every step for a NaN or inf, reports its patches and stops the run.

The compiled step itself leaves a broken update out (`step.train_step`). The metrics of a step are
read here one step late, so that the device never waits for the host.
"""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from attn_unet_jax.runtime import console, hosts
from attn_unet_jax.runtime.errors import UserError, format_error
from attn_unet_jax.runtime.files import write_text
from attn_unet_jax.runtime.signals import Interrupted
from attn_unet_jax.training.checkpoint import system_error
from attn_unet_jax.training.options import TrainingRecipe
from attn_unet_jax.training.state import TrainState
from attn_unet_jax.training.step import StepMetrics

# For every patch of a batch, the id of its case and its lowest voxel in the working grid of the
# scan. An index is negative where the patch is larger than the scan. For an unpadded network this
# is the lowest voxel of the output.
PatchLocations = Sequence[tuple[str, tuple[int, ...]]]


class NonfiniteWatch:
  """A watch over the metrics of steps, each read one step late.

  Args:
    recipe: the options of the training.
    locate_patches: returns where the patches of a step, numbered from 1, came from.
    skipped: the number of updates that were left out before.
    folder: the folder for the state and the patches of a step that stops the run.
  """

  def __init__(
    self,
    recipe: TrainingRecipe,
    locate_patches: Callable[[int], PatchLocations],
    skipped: int,
    folder: Path,
  ):
    self._recipe, self._locate_patches, self._skipped = recipe, locate_patches, skipped
    self._folder = folder
    self._pending: tuple[int, StepMetrics] | None = None

  def note_step(self, step: int, metrics: StepMetrics, state: TrainState) -> None:
    """Notes the metrics of a step and checks those of the step before.

    Args:
      step: the number of the step, from 1.
      metrics: its metrics.
      state: the newest state. After a broken step that was not skipped this is the state before it.

    Raises:
      UserError: see `check_pending`.
    """
    # By now the device works on the newer step, so that reading the older metrics costs no wait.
    self.check_pending(state)
    self._pending = step, metrics

  def check_pending(self, state: TrainState) -> None:
    """Checks the last metrics that were noted.

    Raises:
      UserError: they are not finite and the step cannot be skipped; the state before it is saved.
    """
    if self._pending is None:
      return
    # Forgotten first: an error below must not be reported twice.
    step, metrics = self._pending
    self._pending = None
    loss, norm = (float(x) for x in jax.device_get(metrics))
    if math.isfinite(loss) and math.isfinite(norm):
      return
    problem = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
    locations, description = self._describe_patches(step)
    message = f"step {step}: {problem} (patches: {description})"
    allowed = self._recipe.train.skip_nonfinite
    if self._skipped >= allowed:
      # As texts, since JSON has no NaN or inf.
      record = {"step": step, "loss": str(loss), "gradient_norm": str(norm)}
      outcome = self._save_state(state, record, locations)
      raise UserError(
        f"{message}; the state before it {outcome}. Start again with "
        f"--config.train.skip_nonfinite={allowed + 3} to go on and leave such updates out, or "
        "another --workdir with a lower --config.optimizer.learning_rate "
        f"(now {self._recipe.optimizer.learning_rate:g})"
      )
    self._skipped += 1
    console.print_line(f"{message}; update left out, {self._skipped} of {allowed}")

  def _describe_patches(self, step: int) -> tuple[PatchLocations, str]:
    """Returns where the patches of a step came from, and a description of it.

    This reads their scans again. If a signal or an error stops that, the step is reported without
    them.
    """
    try:
      locations = self._locate_patches(step)
    except (Interrupted, UserError, OSError) as error:
      return [], f"not known, {format_error(error)}"
    return locations, ", ".join(f"{case} at voxel {corner}" for case, corner in locations)

  def _save_state(
    self, state: TrainState, record: dict[str, Any], locations: PatchLocations
  ) -> str:
    """Saves `state/` (by Orbax) and `batch.json` in the folder; returns where, or why it failed.

    Earlier files are replaced. A failure is not raised, since the run ends for another reason that
    the user must learn.
    """
    try:
      with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(self._folder.absolute() / "state", state, force=True)
      # All hosts save the state together, but only one of them writes the text.
      if hosts.is_primary():
        record["patches"] = [{"case": case, "corner": corner} for case, corner in locations]
        write_text(self._folder / "batch.json", json.dumps(record, indent=2) + "\n")
    except (OSError, ValueError, RuntimeError) as error:
      reason = system_error(error) or type(error).__name__
      return f"could not be written to {self._folder} ({reason})"
    return f"is in {self._folder}"
