"""Checkpoints of a run: the latest few, and the best by validation DSC. Orbax does the work."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from attn_unet_jax.training.state import TrainState

_METRIC = "validation_dsc"
_NOT_VALIDATED = -1.0  # below any DSC; Orbax wants a number


def _validation_dsc(metrics: dict[str, float]) -> float:
  return metrics[_METRIC]


class Checkpoints:
  """The folder `checkpoints/` of a run; saving is asynchronous and atomic."""

  def __init__(self, folder: Path, keep: int):
    best = BestN(get_metric_fn=_validation_dsc, n=1)
    self.folder = folder
    self._manager = ocp.CheckpointManager(
      folder.absolute(),
      options=ocp.CheckpointManagerOptions(
        preservation_policy=AnyPreservationPolicy([LatestN(keep), best]),
        best_fn=_validation_dsc,  # without it Orbax stores no metrics; the policy decides
      ),
    )

  @property
  def latest(self) -> int | None:
    """Step of the newest checkpoint."""
    return self._manager.latest_step()

  @property
  def best(self) -> int | None:
    """Step of the checkpoint with the highest validation DSC; the newest if none has one."""
    self._manager.wait_until_finished()  # metrics are readable only then
    scores = {step: self._manager.metrics(step)[_METRIC] for step in self._manager.all_steps()}
    return max(scores, key=lambda step: (scores[step], step), default=None)

  def save(self, state: TrainState, validation_dsc: float | None = None) -> None:
    """Begins to save; a step that is saved already only gains its validation DSC."""
    step = int(state.step)
    if step == self.latest:
      if validation_dsc is None:
        return
      self._manager.wait_until_finished()  # it may still be on its way to the disk
      self._manager.delete(step)
    score = _NOT_VALIDATED if validation_dsc is None else validation_dsc
    self._manager.save(step, args=ocp.args.StandardSave(state), metrics={_METRIC: score})

  def restore(self, step: int, like: TrainState) -> TrainState:
    """The state saved at `step`, onto this machine's device, whatever machine saved it.

    Args:
      step: a saved step.
      like: abstract state, which says what must be there.
    """
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=here), like)
    return self._manager.restore(step, args=ocp.args.StandardRestore(target))

  def close(self) -> None:
    """Waits until everything is on disk."""
    self._manager.close()


@contextlib.contextmanager
def checkpoints(folder: Path, keep: int) -> Iterator[Checkpoints]:
  """Opens a run's checkpoints and leaves them complete on disk."""
  store = Checkpoints(folder, keep)
  try:
    yield store
  finally:
    store.close()
