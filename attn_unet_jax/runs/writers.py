"""Writes the scalars of a run's epochs: TensorBoard, MLflow, Weights & Biases."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import format_error


class ScalarWriter(Protocol):
  """What takes the scalars of an epoch."""

  def write_epoch(self, epoch: int, values: Mapping[str, float]) -> None:
    """Adds finite values of an epoch by their names."""

  def close(self, *, done: bool) -> None:
    """Ends the writing; `done` says whether the training came to its end."""


class EpochWriter(ScalarWriter, Protocol):
  """What takes pictures too."""

  def write_picture(self, epoch: int, name: str, png: bytes) -> None:
    """Adds a picture of an epoch."""


class _Forgiving:
  """A writer to a service, whose fault ends no training: it is said once, and no more is written.

  A training of days does not end because a server does.
  """

  def __init__(self, name: str, writer: ScalarWriter):
    self._name = name
    self._writer: ScalarWriter | None = writer

  def write_epoch(self, epoch: int, values: Mapping[str, float]) -> None:
    """Adds an epoch, as long as the service takes it."""
    self._try(lambda writer: writer.write_epoch(epoch, values))

  def write_picture(self, epoch: int, name: str, png: bytes) -> None:
    """Writes nothing: no part of a scan goes to a service."""

  def close(self, *, done: bool) -> None:
    """Ends the run of the service."""
    self._try(lambda writer: writer.close(done=done))

  def _try(self, work: Callable[[ScalarWriter], None]) -> None:
    if self._writer is None:
      return
    try:
      work(self._writer)
    except Exception as error:  # whatever a foreign package raises
      self._writer = None
      print_line(f"warning: nothing is written to {self._name} from now on: {format_error(error)}")


# Each imports its package only when it is asked for: TensorBoard's takes time, the others are
# extras.
def _open_tensorboard(workdir: Path, first: int) -> EpochWriter:
  from attn_unet_jax.runs.tensorboard import EventFile

  return EventFile(workdir, first)


def _open_mlflow(workdir: Path, first: int) -> EpochWriter:
  from attn_unet_jax.runs.mlflow_run import MLflowRun

  return _Forgiving("MLflow", MLflowRun(workdir))


def _open_wandb(workdir: Path, first: int) -> EpochWriter:
  from attn_unet_jax.runs.wandb_run import WandbRun

  return _Forgiving("W&B", WandbRun(workdir))


_OPENERS: Mapping[str, Callable[[Path, int], EpochWriter]] = {
  "tensorboard": _open_tensorboard,
  "mlflow": _open_mlflow,
  "wandb": _open_wandb,
}
WRITERS = tuple(_OPENERS)


def check_writers(names: Sequence[str]) -> None:
  """Refuses writers that cannot work here, before a run is begun.

  Raises:
    UserError: a package is not installed, or has no store or account to write to.
  """
  if "mlflow" in names:
    from attn_unet_jax.runs.mlflow_run import open_client

    open_client()
  if "wandb" in names:
    from attn_unet_jax.runs.wandb_run import import_wandb

    import_wandb()


def open_writers(names: Sequence[str], workdir: Path, first: int) -> list[EpochWriter]:
  """Opens writers of a run.

  Args:
    names: some of `WRITERS`.
    workdir: the folder of the run. MLflow and W&B get its name and its `config.json`.
    first: the first epoch that will be written; it replaces this and later ones of TensorBoard.

  Raises:
    UserError: as of `check_writers`, or the run that an earlier start wrote to is gone.
  """
  opened: list[EpochWriter] = []
  try:
    # Once each: a writer that is named twice would get every epoch twice.
    for name in dict.fromkeys(names):
      opened.append(_OPENERS[name](workdir, first))
  except BaseException:
    # The others are open and would be left so, such as a run in MLflow that seems to go on.
    for one in opened:
      one.close(done=False)
    raise
  return opened
