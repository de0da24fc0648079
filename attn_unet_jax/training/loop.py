"""Runs the training loop: steps, losses, save, validation, score and log, epoch by epoch."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
from flax import linen as nn

from attn_unet_jax.models.hnn import HNN
from attn_unet_jax.patches.batch import StepInput
from attn_unet_jax.runs import metrics_csv
from attn_unet_jax.runtime import console, hosts
from attn_unet_jax.runtime.signals import (
  Interrupted,
  StopRequest,
  defer_signals,
  raise_interrupted,
)
from attn_unet_jax.training.checkpoint import CheckpointStore
from attn_unet_jax.training.compile import Step, compile_step
from attn_unet_jax.training.epoch_end import EpochReport, ValidationScore
from attn_unet_jax.training.inputs import CaseLoader, open_inputs
from attn_unet_jax.training.mesh import get_first_device_copy, make_replicated_sharding, replicate
from attn_unet_jax.training.nonfinite import NonfiniteWatch
from attn_unet_jax.training.options import TrainingRecipe
from attn_unet_jax.training.pace import PaceReport, announce_and_compile, warn_of_long_training
from attn_unet_jax.training.state import TrainState, abstract_state, create_state
from attn_unet_jax.training.step import StepMetrics

T = TypeVar("T")


def train_network(
  recipe: TrainingRecipe,
  module: nn.Module,
  load: CaseLoader,
  validate: Callable[[TrainState], ValidationScore],
  store: CheckpointStore,
  workdir: Path,
) -> TrainState:
  """Trains from the newest checkpoint, or from the start, to the last epoch.

  With several hosts, all call this; the primary host measures the losses, validates and logs.

  Args:
    recipe: the options of the training.
    module: the network.
    load: returns the cases of a part of the fold: 'training', 'validation' or 'test'.
    validate: returns the mean DSC of whole scans, over the validation cases that have one.
    store: the checkpoints of the run.
    workdir: the folder of the run, for its logs.

  Returns:
    the state after the last epoch.

  Raises:
    Interrupted: SIGTERM or SIGINT reached a host; the state is saved.
    UserError: a loss or a gradient is not finite; says where, and what to do.
  """
  state = _restore_or_create(recipe, module, store)
  epochs_done = hosts.run_on_primary(_count_finished_epochs, recipe, state, workdir)
  # A finished run needs neither its data nor a compiled step.
  if epochs_done >= recipe.train.epochs:
    return state
  inputs = open_inputs(recipe, module, load, workdir)
  steps = range(int(state.step), recipe.train.epochs * recipe.train.steps_per_epoch)
  warn_of_long_training(recipe, module, len(steps))
  step = _FirstCompiled(compile_step(recipe, module, streamed=inputs.streamed))
  with (
    hosts.open_on_primary(metrics_csv.EpochLog, workdir, epochs_done, recipe.train.writers) as log,
    inputs.source.feeds(steps) as feeds,
    _defer_shared_signals() as stop,
  ):
    # Reading the scans of a broken step again takes long, and nothing is lost if it is interrupted.
    locate_patches = stop.interruptible_once(inputs.locate_patches)
    watch = NonfiniteWatch(recipe, locate_patches, int(state.skipped), workdir / "nonfinite")
    report = EpochReport(recipe, module, inputs.fixed, log)
    pace = PaceReport(len(steps), recipe.train.steps_per_epoch)
    run = _Run(recipe, step, feeds, store, stop, watch, pace, report, validate)
    for epoch in range(epochs_done + 1, recipe.train.epochs + 1):
      state = _run_epoch(run, state, epoch)
  return state


def _restore_or_create(
  recipe: TrainingRecipe, module: nn.Module, store: CheckpointStore
) -> TrainState:
  """Restores the newest state of a run; where there is none, creates the first one."""
  # All hosts must restore one step, whatever each of them sees in the folder.
  latest = hosts.run_on_primary(lambda: store.latest_step)
  if latest is not None:
    sharding = make_replicated_sharding(recipe)
    return store.restore(latest, abstract_state(recipe, module), sharding)
  state = replicate(recipe, hosts.broadcast_from_primary(create_state(recipe, module)))
  if isinstance(module, HNN):
    console.print_line(
      "from random weights, not from ImageNet's: attn_unet_jax.convert --help says how"
    )
  return state


class _Run(NamedTuple):
  """What all epochs of a training use."""

  recipe: TrainingRecipe
  step: "_FirstCompiled"
  feeds: Iterator[StepInput]
  store: CheckpointStore
  stop: "_SharedStopRequest"
  watch: NonfiniteWatch
  pace: PaceReport
  report: EpochReport
  validate: Callable[[TrainState], ValidationScore]


def _run_epoch(run: _Run, state: TrainState, epoch: int) -> TrainState:
  """Trains an epoch, or the rest of one; measures, saves, validates and logs its state."""
  recipe, stop, done = run.recipe, run.stop, int(state.step)
  state, seconds = _train_steps(run, state, epoch)
  done = int(state.step) - done
  is_validated = epoch == recipe.train.epochs or epoch % recipe.train.validate_every == 0
  score = None
  try:
    measure = stop.interruptible(run.report.measure_epoch)
    row = hosts.run_on_primary(measure, epoch, get_first_device_copy(state), seconds, done)
    if is_validated or epoch % recipe.train.save_every == 0:
      # Only now that its losses are known to be finite, so a bad state cannot evict the last
      # good checkpoint.
      run.store.save(state)
    if number := stop.agree_on_signal(now=True):
      raise_interrupted(number)
    if is_validated:  # after saving, since it may take longer than a grace period
      found = hosts.run_on_primary(stop.interruptible(run.validate), get_first_device_copy(state))
      score = ValidationScore(*found)  # which hosts exchange as a plain list
      run.store.save(state, score.dsc)
      row["validation_dsc"] = score.dsc
  except Interrupted as stopped:
    # The epoch is not in the log yet, so the next start measures it again.
    _save_and_stop(run, stopped.number, state)
  run.report.write_row(row, score)  # last, since an epoch in the log is not validated again
  _save_and_stop(run, stop.agree_on_signal(now=True), state)
  return state


class _FirstCompiled:
  """A step that is compiled, and announced, with its first input."""

  def __init__(self, step: Step):
    self._step, self._is_compiled = step, False

  def compile(self, state: TrainState, feed: StepInput) -> bool:
    """Compiles the step; returns whether that was still to be done."""
    if self._is_compiled:
      return False
    self._step, self._is_compiled = announce_and_compile(self._step, state, feed), True
    return True

  def __call__(self, state: TrainState, feed: StepInput) -> tuple[TrainState, StepMetrics]:
    """Runs the step."""
    return self._step(state, feed)


def _count_finished_epochs(recipe: TrainingRecipe, state: TrainState, workdir: Path) -> int:
  """Counts the epochs that are trained and, at the end of an epoch, also in the log."""
  epochs, rest = divmod(int(state.step), recipe.train.steps_per_epoch)
  logged = {int(row["epoch"]) for row in metrics_csv.read_metrics(workdir / "metrics.csv")}
  # Stopped between the last step of an epoch and its line in the log: its end is still to come.
  return epochs - 1 if epochs and not rest and epochs not in logged else epochs


def _train_steps(run: _Run, state: TrainState, epoch: int) -> tuple[TrainState, float]:
  """Trains the remaining steps of an epoch; returns the state and the seconds that they took."""
  recipe, stop = run.recipe, run.stop
  began = time.monotonic()
  steps = range(int(state.step), epoch * recipe.train.steps_per_epoch)
  shown = console.show_progress(steps, len(steps), f"epoch {epoch}/{recipe.train.epochs}")
  for steps_done in shown:
    _save_and_stop(run, stop.agree_on_signal(), state)
    # With several hosts only `agree_on_signal` may stop a step, so that all stop at the same one.
    is_alone = hosts.count_processes() == 1
    try:
      feed = stop.interruptible(next)(run.feeds) if is_alone else next(run.feeds)
    except Interrupted as stopped:
      _save_and_stop(run, stopped.number, state)
    if run.step.compile(state, feed):
      # Not only after the step, which may take long where compiling does.
      _save_and_stop(run, stop.agree_on_signal(), state)
    with jax.transfer_guard("disallow"):  # an implicit copy would stall every step
      state, metrics = run.step(state, feed)
    run.watch.note_step(steps_done + 1, metrics, state)
    run.pace.note_step(state)
  run.watch.check_pending(state)
  # Steps run asynchronously; their time ends when the last state is ready.
  jax.block_until_ready(state)
  return state, time.monotonic() - began


def _save_and_stop(run: _Run, number: int | None, state: TrainState) -> None:
  """Saves the state and raises Interrupted; does nothing if `number` is None."""
  if number is None:
    return
  run.store.save(state)
  run.store.wait()  # the process ends next, and with it the thread that saves
  run.watch.check_pending(state)  # the next start will not see the metrics of this step
  console.print_line(
    f"stopped by signal {number}; saved after step {int(state.step)}, start again to go on"
  )
  raise_interrupted(number)


@dataclasses.dataclass
class _SharedStopRequest(StopRequest):
  """A stop request on which several hosts agree, so that all stop at one step."""

  agreement: hosts.SignalAgreement = dataclasses.field(default_factory=hosts.SignalAgreement)

  def agree_on_signal(self, *, now: bool = False) -> int | None:
    """Returns the signal on which all hosts agree here; see `hosts.SignalAgreement`."""
    return self.agreement(self.number, now=now)

  def interruptible(self, work: Callable[..., T]) -> Callable[..., T]:
    """Returns `work` such that a signal, even an earlier one, raises Interrupted within it."""

    def run_interruptibly(*arguments: Any) -> T:
      """Runs the work, in which a signal raises Interrupted."""
      self.at_once = True
      try:
        # After `at_once` is set: a signal between the two lines must not be missed.
        self.raise_if_stopped()
        return work(*arguments)
      finally:
        self.at_once = False  # outside such work a signal is only recorded

    return run_interruptibly

  def interruptible_once(self, work: Callable[..., T]) -> Callable[..., T]:
    """Returns `work` such that only the first signal raises Interrupted within it.

    Work that begins after that signal runs to its end.
    """
    run_interruptibly = self.interruptible(work)
    return lambda *arguments: (run_interruptibly if self.number is None else work)(*arguments)


@contextmanager
def _defer_shared_signals() -> Iterator["_SharedStopRequest"]:
  """Defers SIGTERM and SIGINT within this context to where stopping loses nothing."""
  stop = _SharedStopRequest()
  with defer_signals(stop):
    yield stop
  # A signal after the last check finds everything saved, but must still end the command.
  stop.raise_if_stopped()
