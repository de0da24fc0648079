"""The order of events: steps, losses, save, validation, score, log; then the next epoch."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax
from flax import linen as nn

from attn_unet_jax.models.hnn import HNN
from attn_unet_jax.patches.batch import StepInput
from attn_unet_jax.runs import metrics_csv
from attn_unet_jax.runtime import console, hosts
from attn_unet_jax.runtime.signals import Interrupted, StopRequest, defer_signals
from attn_unet_jax.training.checkpoint import CheckpointStore
from attn_unet_jax.training.compile import Step, compile_step
from attn_unet_jax.training.epoch_end import EpochReport
from attn_unet_jax.training.inputs import CaseLoader, open_inputs
from attn_unet_jax.training.mesh import get_first_device_copy, make_replicated_sharding, replicate
from attn_unet_jax.training.nonfinite import NonfiniteWatch
from attn_unet_jax.training.options import TrainingRecipe
from attn_unet_jax.training.state import TrainState, abstract_state, create_state

T = TypeVar("T")


def train_network(
  recipe: TrainingRecipe,
  module: nn.Module,
  load: CaseLoader,
  validate: Callable[[TrainState], float],
  store: CheckpointStore,
  workdir: Path,
) -> TrainState:
  """Trains from the newest checkpoint, or from the start, to the last epoch.

  Of several hosts, all call this; the first one measures the losses, validates and logs.

  Args:
    recipe: what the training reads.
    module: the network.
    load: part of the fold ('training', 'validation', 'test') -> its cases.
    validate: mean DSC of the validation cases, whole scans.
    store: where states are kept.
    workdir: the run, for its logs.

  Raises:
    Interrupted: SIGTERM or SIGINT came, to any host; the state is saved.
    UserError: a loss or a gradient is not finite; says where, and what to do.
  """
  latest = hosts.run_on_primary(lambda: store.latest_step)
  if latest is None:
    state = replicate(recipe, hosts.broadcast_from_primary(create_state(recipe, module)))
    if isinstance(module, HNN):
      console.print_line(
        "from random weights, not from ImageNet's: attn_unet_jax.convert --help says how"
      )
  else:
    state = store.restore(latest, abstract_state(recipe, module), make_replicated_sharding(recipe))
  first = hosts.run_on_primary(_count_finished_epochs, recipe, state, workdir)
  if first >= recipe.train.epochs:
    return state
  inputs = open_inputs(recipe, module, load, workdir)
  step = compile_step(recipe, module, streamed=inputs.streamed)
  steps = range(int(state.step), recipe.train.epochs * recipe.train.steps_per_epoch)
  with (
    hosts.open_on_primary(lambda: closing(metrics_csv.EpochLog(workdir, first))) as log,
    inputs.source.feeds(steps) as feeds,
    _defer_shared_signals() as stop,
  ):
    places = stop.interruptible_once(inputs.locate_patches)
    watch = NonfiniteWatch(recipe, places, int(state.skipped), workdir / "nonfinite")
    report = EpochReport(recipe, module, inputs.fixed, log, first)
    for epoch in range(first + 1, recipe.train.epochs + 1):
      state, seconds = _train_epoch(recipe, step, state, feeds, epoch, stop, store, watch)
      due = epoch == recipe.train.epochs or epoch % recipe.train.validate_every == 0
      try:
        measure = stop.interruptible(report.measure_epoch)
        row = hosts.run_on_primary(measure, epoch, get_first_device_copy(state), seconds)
        if due or epoch % recipe.train.save_every == 0:
          store.save(state)  # whose losses are finite: else it might take the last good one's place
        if number := stop.agreed_signal(now=True):  # of any host
          raise Interrupted(number)
        if due:  # only now, since it may take longer than a grace period
          scored = hosts.run_on_primary(stop.interruptible(validate), get_first_device_copy(state))
          store.save(state, scored)
          row["validation_dsc"] = scored
      except Interrupted as stopped:  # the next start measures this epoch
        _save_and_stop(stopped.number, state, store, watch)
      report.write_row(row)  # last: what is in the log is not validated again
      _save_and_stop(stop.agreed_signal(now=True), state, store, watch)
  return state


def _count_finished_epochs(recipe: TrainingRecipe, state: TrainState, workdir: Path) -> int:
  """Epochs that need nothing more: trained, and, unless it ended before that, in the log."""
  epochs, rest = divmod(int(state.step), recipe.train.steps_per_epoch)
  logged = {int(row["epoch"]) for row in metrics_csv.read_metrics(workdir / "metrics.csv")}
  return epochs - 1 if epochs and not rest and epochs not in logged else epochs


def _train_epoch(
  recipe: TrainingRecipe,
  step: Step,
  state: TrainState,
  feeds: Iterator[StepInput],
  epoch: int,
  stop: "_SharedStopRequest",
  store: CheckpointStore,
  watch: NonfiniteWatch,
) -> tuple[TrainState, float]:
  """The rest of an epoch's steps; seconds that they took."""
  began = time.monotonic()
  steps = range(int(state.step), epoch * recipe.train.steps_per_epoch)
  for done in console.show_progress(steps, len(steps), f"epoch {epoch}/{recipe.train.epochs}"):
    _save_and_stop(stop.agreed_signal(), state, store, watch)
    try:
      feed = stop.interruptible(next)(feeds) if hosts.count_processes() == 1 else next(feeds)
    except Interrupted as stopped:
      _save_and_stop(stopped.number, state, store, watch)
    with jax.transfer_guard("disallow"):  # an implicit copy would stall every step
      state, outcome = step(state, feed)
    watch.note_step(done + 1, outcome, state)
  watch.check_pending(state)
  jax.block_until_ready(state)
  return state, time.monotonic() - began


def _save_and_stop(
  number: int | None, state: TrainState, store: CheckpointStore, watch: NonfiniteWatch
) -> None:
  """Saves and leaves, if a signal asked to."""
  if number is None:
    return
  store.save(state)
  store.wait()
  watch.check_pending(state)  # the next start knows of no step before its own
  console.print_line(
    f"stopped by signal {number}; saved after step {int(state.step)}, start again to go on"
  )
  raise Interrupted(number)


@dataclasses.dataclass
class _SharedStopRequest(StopRequest):
  """The same, where several hosts stop together."""

  agreement: hosts.SignalAgreement = dataclasses.field(default_factory=hosts.SignalAgreement)

  def agreed_signal(self, *, now: bool = False) -> int | None:
    """The signal that all hosts heed here; see `hosts.SignalAgreement`."""
    return self.agreement(self.number, now=now)

  def interruptible(self, work: Callable[..., T]) -> Callable[..., T]:
    """The same, but that a signal, also one that came before, raises `Interrupted` inside."""

    def breakable(*arguments: Any) -> T:
      self.at_once = True
      try:
        self.raise_if_stopped()
        return work(*arguments)
      finally:
        self.at_once = False

    return breakable

  def interruptible_once(self, work: Callable[..., T]) -> Callable[..., T]:
    """The same for the first signal alone: work that begins after it is not broken off."""
    breakable = self.interruptible(work)
    return lambda *arguments: (breakable if self.number is None else work)(*arguments)


@contextmanager
def _defer_shared_signals() -> Iterator["_SharedStopRequest"]:
  """While open, SIGTERM and SIGINT are noted, or raise `Interrupted` where that loses nothing."""
  stop = _SharedStopRequest()
  with defer_signals(stop):
    yield stop
  stop.raise_if_stopped()  # came after the last look, when all was saved
