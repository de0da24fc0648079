"""Watches every step for a NaN or inf, says where it came from, and stops the run.

The compiled step leaves a broken update out by itself (`step.train_step`). Here its outcome is read
one step late, so that the device never waits for the host.
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

# Of every patch of a batch, the case's id and the lowest voxel, in the working grid of the whole
# scan: below 0 where the patch is larger. Of an unpadded network: of what it answers for.
PatchLocations = Sequence[tuple[str, tuple[int, ...]]]


class NonfiniteWatch:
  """Looks at the outcomes of steps, each one step late.

  Args:
    recipe: what the training reads.
    places: number of a step, from 1 -> where its patches came from.
    skipped: updates that were left out before.
    folder: where a run that is stopped leaves what there is to inspect.
  """

  def __init__(
    self,
    recipe: TrainingRecipe,
    places: Callable[[int], PatchLocations],
    skipped: int,
    folder: Path,
  ):
    self._recipe, self._places, self._skipped = recipe, places, skipped
    self._folder = folder
    self._pending: tuple[int, StepMetrics] | None = None

  def note_step(self, step: int, outcome: StepMetrics, state: TrainState) -> None:
    """Takes the outcome of step number `step` (from 1), and looks at the one before.

    Args:
      step: its number.
      outcome: what it told.
      state: the newest state; where a step was broken and not skipped, it is the one before it.

    Raises:
      UserError: see `settle`.
    """
    self.check_pending(state)
    self._pending = step, outcome

  def check_pending(self, state: TrainState) -> None:
    """Looks at the last outcome that was noted.

    Raises:
      UserError: it is not finite and cannot be skipped; the state before it is in the folder.
    """
    if self._pending is None:
      return
    step, outcome = self._pending
    self._pending = None
    loss, norm = (float(x) for x in jax.device_get(outcome))
    if math.isfinite(loss) and math.isfinite(norm):
      return
    what = f"the loss is {loss}" if not math.isfinite(loss) else f"the gradient's norm is {norm}"
    places, named = self._describe_patches(step)
    told = f"step {step}: {what} (patches: {named})"
    allowed = self._recipe.train.skip_nonfinite
    if self._skipped >= allowed:
      about = {"step": step, "loss": str(loss), "gradient_norm": str(norm)}
      kept = self._save_state(state, about, places)
      raise UserError(
        f"{told}; the state before it {kept}. Start again with "
        f"--config.train.skip_nonfinite={allowed + 3} to go on and leave such updates out, or "
        "another --workdir with a lower --config.optimizer.learning_rate "
        f"(now {self._recipe.optimizer.learning_rate:g})"
      )
    self._skipped += 1
    console.print_line(f"{told}; update left out, {self._skipped} of {allowed}")

  def _describe_patches(self, step: int) -> tuple[PatchLocations, str]:
    """Where the patches of a step came from, and the same in words.

    Their scans are read again; where a signal breaks that off, or it fails, the step is told still.
    """
    try:
      places = self._places(step)
    except (Interrupted, UserError, OSError) as error:
      return [], f"not known, {format_error(error)}"
    return places, ", ".join(f"{case} at voxel {corner}" for case, corner in places)

  def _save_state(self, state: TrainState, about: dict[str, Any], places: PatchLocations) -> str:
    """Writes `state/` (as Orbax does) and `batch.json`; what lay there before is replaced.

    Says where, or why it could not: the run ends for another reason, which is to be told.
    """
    try:
      with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(self._folder.absolute() / "state", state, force=True)
      if hosts.is_primary():
        about["patches"] = [{"case": case, "corner": corner} for case, corner in places]
        write_text(self._folder / "batch.json", json.dumps(about, indent=2) + "\n")
    except (OSError, ValueError, RuntimeError) as error:
      reason = system_error(error) or type(error).__name__
      return f"could not be written to {self._folder} ({reason})"
    return f"is in {self._folder}"
