"""The order of events: steps, losses, validation, log, save; then the next epoch."""

import dataclasses
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import jax
from flax import linen as nn
from ml_collections import ConfigDict

from attn_unet_jax.command import Interrupted
from attn_unet_jax.data.patches import Batch, Feed
from attn_unet_jax.errors import UserError
from attn_unet_jax.training import logs
from attn_unet_jax.training.checkpoint import Checkpoints
from attn_unet_jax.training.inputs import PARTS, Loader, open_inputs
from attn_unet_jax.training.nonfinite import Watch
from attn_unet_jax.training.optimizer import learning_rate
from attn_unet_jax.training.parallel import Step, compile_step, on_first_device, spread
from attn_unet_jax.training.state import TrainState, abstract, create
from attn_unet_jax.training.step import fixed_loss

Validate = Callable[[TrainState], float]


def train(
  config: ConfigDict,
  module: nn.Module,
  load: Loader,
  validate: Validate,
  store: Checkpoints,
  workdir: Path,
) -> TrainState:
  """Trains from the newest checkpoint, or from the start, to the last epoch.

  Args:
    config: the run's config.
    module: the network.
    load: part of the fold ('training', 'validation', 'test') -> its cases.
    validate: mean DSC of the validation cases, whole scans.
    store: where states are kept.
    workdir: the run, for its logs.

  Raises:
    Interrupted: SIGTERM or SIGINT came; the state is saved.
    UserError: a loss or a gradient is not finite; says where, and what to do.
  """
  if store.latest is None:
    state = create(config, module)
    if config.model.name == "hnn":
      logs.say("from random weights, not from ImageNet's: attn_unet_jax.convert --help says how")
  else:
    state = store.restore(store.latest, abstract(config, module))
  first = _epochs_done(config, state, workdir)
  if first >= config.train.epochs:
    return state
  inputs = open_inputs(config, module, load, workdir)
  step = compile_step(config, module, streamed=inputs.streamed)
  losses = _losses(config, module, inputs.fixed)
  state = spread(config, state)
  watch = Watch(config, inputs.places, int(state.skipped), workdir / "nonfinite")
  began = time.monotonic()
  steps = range(int(state.step), config.train.epochs * config.train.steps_per_epoch)
  with (
    closing(logs.EpochLog(workdir, first)) as log,
    inputs.source.feeds(steps) as feeds,
    _signals() as stop,
  ):
    for epoch in range(first + 1, config.train.epochs + 1):
      state, seconds = _epoch(config, step, state, feeds, epoch, stop, store, watch)
      trained = on_first_device(state)
      row = {"epoch": epoch, "train_seconds": seconds, **losses(trained)}
      row["learning_rate"] = float(learning_rate(config)(int(state.step) - 1))
      last = epoch == config.train.epochs
      due = last or epoch % config.train.validate_every == 0
      row["validation_dsc"] = _validated(validate, trained, stop, store) if due else None
      log.write(row)
      _say(row, began, first, config.train.epochs)
      if due or epoch % config.train.save_every == 0:
        store.save(state, row["validation_dsc"])
      _leave_if(stop, state, store)
  return state


def _epochs_done(config: ConfigDict, state: TrainState, workdir: Path) -> int:
  """Epochs that need nothing more: trained, and, unless stopped before that, in the log."""
  epochs, rest = divmod(int(state.step), config.train.steps_per_epoch)
  logged = {int(row["epoch"]) for row in logs.read_metrics(workdir / "metrics.csv")}
  return epochs - 1 if epochs and not rest and epochs not in logged else epochs


def _epoch(
  config: ConfigDict,
  step: Step,
  state: TrainState,
  feeds: Iterator[Feed],
  epoch: int,
  stop: "_Stop",
  store: Checkpoints,
  watch: Watch,
) -> tuple[TrainState, float]:
  """The rest of an epoch's steps; seconds that they took."""
  began = time.monotonic()
  steps = range(int(state.step), epoch * config.train.steps_per_epoch)
  for done in logs.progress(steps, len(steps), f"epoch {epoch}/{config.train.epochs}"):
    _leave_if(stop, state, store)
    with jax.transfer_guard("disallow"):  # an implicit copy would stall every step
      state, outcome = step(state, next(feeds))
    watch.note(done + 1, outcome, state)
  watch.settle(state)
  jax.block_until_ready(state)
  return state, time.monotonic() - began


def _leave_if(stop: "_Stop", state: TrainState, store: Checkpoints) -> None:
  if stop.number is not None:
    store.save(state)
    logs.say(
      f"stopped by signal {stop.number}; saved after step {int(state.step)}, start again to go on"
    )
    raise Interrupted(stop.number)


def _validated(validate: Validate, state: TrainState, stop: "_Stop", store: Checkpoints) -> float:
  """Validates; a signal breaks in, and the next start validates this state again."""
  stop.at_once = True
  try:
    return validate(state)
  except Interrupted:
    _leave_if(stop, state, store)
    raise
  finally:
    stop.at_once = False


def _losses(
  config: ConfigDict, module: nn.Module, fixed: dict[str, list[Batch]]
) -> Callable[[TrainState], dict[str, Any]]:
  """How the three losses are measured, on fixed patches."""
  measure = jax.jit(lambda variables, batch: fixed_loss(config, module, variables, batch))

  def losses(state: TrainState) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for part, column in zip(PARTS, ("train", "validation", "test"), strict=True):
      began = time.monotonic()
      values = [float(measure(state.variables, batch)) for batch in fixed[part]]
      row[f"{column}_seg_loss"] = loss = sum(values) / len(values)
      if part != "training":  # the training's time is that of its steps
        row[f"{column}_seconds"] = time.monotonic() - began
      if not math.isfinite(loss):
        raise UserError(
          f"the {part} loss is {loss} after step {int(state.step)}, on patches without "
          "augmentation; start another --workdir with a lower --config.optimizer.learning_rate "
          f"(now {config.optimizer.learning_rate:g})"
        )
    return row

  return losses


def _say(row: dict[str, Any], began: float, first: int, epochs: int) -> None:
  done = row["epoch"] - first
  left = (time.monotonic() - began) / done * (epochs - row["epoch"])
  dsc = "" if row["validation_dsc"] is None else f", validation DSC {row['validation_dsc']:.3f}"
  logs.say(
    f"epoch {row['epoch']}/{epochs}: loss train {row['train_seg_loss']:.4f}, "
    f"validation {row['validation_seg_loss']:.4f}, test {row['test_seg_loss']:.4f}{dsc}; "
    f"{row['train_seconds']:.1f} s, {logs.duration(left)} left"
  )


@dataclasses.dataclass
class _Stop:
  """The signal that asked to stop, if one did, and whether it may break in now."""

  number: int | None = None
  at_once: bool = False


@contextmanager
def _signals() -> Iterator["_Stop"]:
  """While open, SIGTERM and SIGINT are noted, or raise `Interrupted` where that loses nothing."""
  seen = _Stop()

  def note(number: int, _: FrameType | None) -> None:
    seen.number = number
    if seen.at_once:
      raise Interrupted(number)

  numbers = (signal.SIGTERM, signal.SIGINT)
  before = {number: signal.signal(number, note) for number in numbers}
  try:
    yield seen
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
