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
from attn_unet_jax.patches.batch import Feed
from attn_unet_jax.runs import metrics_csv
from attn_unet_jax.runtime import console, hosts
from attn_unet_jax.runtime.signals import Interrupted, StopRequest, defer_signals
from attn_unet_jax.training.checkpoint import Checkpoints
from attn_unet_jax.training.compile import Step, compile_step
from attn_unet_jax.training.epoch_end import Report
from attn_unet_jax.training.inputs import Loader, open_inputs
from attn_unet_jax.training.mesh import on_first_device, replicated, spread
from attn_unet_jax.training.nonfinite import Watch
from attn_unet_jax.training.options import TrainingRecipe
from attn_unet_jax.training.state import TrainState, abstract, create

T = TypeVar("T")


def train(
  recipe: TrainingRecipe,
  module: nn.Module,
  load: Loader,
  validate: Callable[[TrainState], float],
  store: Checkpoints,
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
  latest = hosts.run_on_primary(lambda: store.latest)
  if latest is None:
    state = spread(recipe, hosts.broadcast_from_primary(create(recipe, module)))
    if isinstance(module, HNN):
      console.print_line(
        "from random weights, not from ImageNet's: attn_unet_jax.convert --help says how"
      )
  else:
    state = store.restore(latest, abstract(recipe, module), replicated(recipe))
  first = hosts.run_on_primary(_epochs_done, recipe, state, workdir)
  if first >= recipe.train.epochs:
    return state
  inputs = open_inputs(recipe, module, load, workdir)
  step = compile_step(recipe, module, streamed=inputs.streamed)
  steps = range(int(state.step), recipe.train.epochs * recipe.train.steps_per_epoch)
  with (
    hosts.open_on_primary(lambda: closing(metrics_csv.EpochLog(workdir, first))) as log,
    inputs.source.feeds(steps) as feeds,
    _signals() as stop,
  ):
    places = stop.breaking_into_once(inputs.places)
    watch = Watch(recipe, places, int(state.skipped), workdir / "nonfinite")
    report = Report(recipe, module, inputs.fixed, log, first)
    for epoch in range(first + 1, recipe.train.epochs + 1):
      state, seconds = _epoch(recipe, step, state, feeds, epoch, stop, store, watch)
      due = epoch == recipe.train.epochs or epoch % recipe.train.validate_every == 0
      try:
        measure = stop.breaking_into(report.measure)
        row = hosts.run_on_primary(measure, epoch, on_first_device(state), seconds)
        if due or epoch % recipe.train.save_every == 0:
          store.save(state)  # whose losses are finite: else it might take the last good one's place
        if number := stop.heeded(now=True):  # of any host
          raise Interrupted(number)
        if due:  # only now, since it may take longer than a grace period
          scored = hosts.run_on_primary(stop.breaking_into(validate), on_first_device(state))
          store.save(state, scored)
          row["validation_dsc"] = scored
      except Interrupted as stopped:  # the next start measures this epoch
        _leave(stopped.number, state, store, watch)
      report.write(row)  # last: what is in the log is not validated again
      _leave(stop.heeded(now=True), state, store, watch)
  return state


def _epochs_done(recipe: TrainingRecipe, state: TrainState, workdir: Path) -> int:
  """Epochs that need nothing more: trained, and, unless it ended before that, in the log."""
  epochs, rest = divmod(int(state.step), recipe.train.steps_per_epoch)
  logged = {int(row["epoch"]) for row in metrics_csv.read_metrics(workdir / "metrics.csv")}
  return epochs - 1 if epochs and not rest and epochs not in logged else epochs


def _epoch(
  recipe: TrainingRecipe,
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
  steps = range(int(state.step), epoch * recipe.train.steps_per_epoch)
  for done in console.show_progress(steps, len(steps), f"epoch {epoch}/{recipe.train.epochs}"):
    _leave(stop.heeded(), state, store, watch)
    try:
      feed = stop.breaking_into(next)(feeds) if hosts.count_processes() == 1 else next(feeds)
    except Interrupted as stopped:
      _leave(stopped.number, state, store, watch)
    with jax.transfer_guard("disallow"):  # an implicit copy would stall every step
      state, outcome = step(state, feed)
    watch.note(done + 1, outcome, state)
  watch.settle(state)
  jax.block_until_ready(state)
  return state, time.monotonic() - began


def _leave(number: int | None, state: TrainState, store: Checkpoints, watch: Watch) -> None:
  """Saves and leaves, if a signal asked to."""
  if number is None:
    return
  store.save(state)
  store.wait()
  watch.settle(state)  # the next start knows of no step before its own
  console.print_line(
    f"stopped by signal {number}; saved after step {int(state.step)}, start again to go on"
  )
  raise Interrupted(number)


@dataclasses.dataclass
class _Stop(StopRequest):
  """The same, where several hosts stop together."""

  agreement: hosts.SignalAgreement = dataclasses.field(default_factory=hosts.SignalAgreement)

  def heeded(self, *, now: bool = False) -> int | None:
    """The signal that all hosts heed here; see `hosts.SignalAgreement`."""
    return self.agreement(self.number, now=now)

  def breaking_into(self, work: Callable[..., T]) -> Callable[..., T]:
    """The same, but that a signal, also one that came before, raises `Interrupted` inside."""

    def breakable(*arguments: Any) -> T:
      self.at_once = True
      try:
        self.raise_if_stopped()
        return work(*arguments)
      finally:
        self.at_once = False

    return breakable

  def breaking_into_once(self, work: Callable[..., T]) -> Callable[..., T]:
    """The same for the first signal alone: work that begins after it is not broken off."""
    breakable = self.breaking_into(work)
    return lambda *arguments: (breakable if self.number is None else work)(*arguments)


@contextmanager
def _signals() -> Iterator["_Stop"]:
  """While open, SIGTERM and SIGINT are noted, or raise `Interrupted` where that loses nothing."""
  stop = _Stop()
  with defer_signals(stop):
    yield stop
  stop.raise_if_stopped()  # came after the last look, when all was saved
