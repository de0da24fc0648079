"""Trains one network, from its config to its tested checkpoint: an ordinary run."""

from pathlib import Path

from flax import linen as nn

from attn_unet_jax.augment.registry import load_augmentation
from attn_unet_jax.cases.boxes import to_json as boxes_to_json
from attn_unet_jax.cases.fold import DataFold
from attn_unet_jax.cases.joined_cases import get_painted
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.evaluation.scoring import mean_dsc
from attn_unet_jax.inference.sliding import SlidingWindow
from attn_unet_jax.losses.total import load_loss
from attn_unet_jax.painting.material_map import check_names
from attn_unet_jax.runs import folder as run_folder
from attn_unet_jax.runtime import hosts
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.files import write_text
from attn_unet_jax.training.checkpoint import open_checkpoints
from attn_unet_jax.training.epoch_end import ValidationScore
from attn_unet_jax.training.loop import train_network
from attn_unet_jax.training.mesh import check_convolutions, check_patch, replicate, select_devices
from attn_unet_jax.training.optimizer import check_patterns
from attn_unet_jax.training.state import TrainState, abstract_state
from attn_unet_jax.workflows.choose_run_steps import choose_run_steps
from attn_unet_jax.workflows.evaluate_run import evaluate_run
from attn_unet_jax.workflows.load_run import LoadedRun, load_best
from attn_unet_jax.workflows.network import build_run_network
from attn_unet_jax.workflows.run_data import RunData
from attn_unet_jax.workflows.run_folder import open_run_folder
from attn_unet_jax.workflows.starting_run import open_starting_run


def train_and_test(
  config: RunConfig,
  fold: DataFold,
  workdir: Path,
  *,
  test: bool = True,
  data: RunData | None = None,
) -> None:
  """Trains a run to its last epoch, or resumes it if it was stopped.

  All hosts call this.

  Args:
    config: the run's config.
    fold: the data. A run that is resumed needs the fold that it wrote when it began.
    workdir: its folder.
    test: whether to segment and score the test cases then.
    data: the run's data with its digests; None: a stage of a system, whose folder holds them.

  Raises:
    UserError: config, data and devices do not fit each other; nothing has been written then.
    Interrupted: a signal came; the state is saved.
  """
  # Hosts that see different cases would crop different batches in one step.
  hosts.check_same_on_hosts("the cases and their folds", fold.to_json(), "give all the same data")
  module = check_training(config, fold)
  # A run with progress no longer needs the run that it started from.
  origin = (
    None
    if hosts.run_on_primary(run_folder.has_progress, workdir)
    else open_starting_run(config, module)
  )
  goes_on = hosts.run_on_primary(open_training_folder, config, fold, workdir, data)
  hosts.check_shared_path(workdir / "folds.json")
  print_line(f"{'resuming' if goes_on else 'new run'} {workdir}: {fold.describe()}")
  # One object for validation and test, so that the window is compiled once.
  validator = SlidingWindow(config, module)

  def validate(state: TrainState) -> ValidationScore:
    """Scores a state on the validation cases."""
    found = mean_dsc(fold, fold.split.validation, validator.use(state.variables), config)
    # The mean of no scores is NaN, which would be compared with real ones.
    return ValidationScore(found.mean if found.n else None, found.n, found.cases)

  with hosts.open_on_primary(
    run_folder.record_run,
    workdir,
    origin.make_record() if origin else None,
    data.accepted if data else "",
    describe_accepted(config, fold),
  ):
    with open_checkpoints(workdir / "checkpoints", config.train.keep) as store:
      if origin:
        print_line(f"from {origin}")
        # Saved before the first step, so that a run that stops early resumes from these weights.
        store.save(
          replicate(
            config, hosts.broadcast_from_primary(origin.make_state(config, config.model, module))
          )
        )
      train_network(config, module, fold.load, validate, store, workdir)
    if test:
      # From disk: the state at hand is that of the last epoch, which need not be the best.
      found = load_best(workdir)
      system = validator.use(found.variables)
      trained = LoadedRun(config, found.classes, system, found.step)
      print_line(f"testing the checkpoint of step {trained.step} on {len(fold.split.test)} cases")
      # One host tests, as segmentation is not divided between hosts.
      hosts.run_on_primary(_test_run, trained, fold, workdir)
  if test:
    print_line(f"the run: {workdir}/metrics.csv (a line per epoch), run.json, checkpoints/")


def check_training(config: RunConfig, fold: DataFold) -> nn.Module:
  """Returns the run's network once it is known that it can be trained on this data here.

  Raises:
    UserError: config, data and devices do not fit each other, or a loss or augmentation of the
      user's cannot be imported.
  """
  # Tracing the step would load them too, but only once every scan has been read.
  for name in config.augment.extra:
    load_augmentation(name)
  for term in config.loss.terms:
    load_loss(term.name)
  module = build_run_network(config, len(fold.mapping.classes) + 1)
  check_convolutions(module, select_devices(config))
  # The slices of a case show whether any scan fits into memory at this spacing.
  cases = fold.load("training")
  cases.case_slices(fold.split.training[0])
  if config.painting.enabled:
    painted = get_painted(cases).dataset
    check_names(painted.label_names, config.data.also or config.data.folder or config.data.dataset)
  check_patch(config, module)
  check_patterns(config, abstract_state(config, module).params)
  return module


def _test_run(trained: LoadedRun, fold: DataFold, workdir: Path) -> None:
  """Chooses the steps after the network on the validation cases, and tests with them."""
  evaluate_run(choose_run_steps(trained, fold, workdir), fold, workdir)


def describe_accepted(config: RunConfig, fold: DataFold) -> dict[str, list[str]]:
  """Returns for `run.json` what the user accepts, and a list that grows by what was accepted."""
  return {
    "reasons": sorted(config.data.acceptance),
    "findings": fold.dataset.judged.accepted,
  }


def open_training_folder(
  config: RunConfig, fold: DataFold, workdir: Path, data: RunData | None
) -> bool:
  """Creates or resumes the folder of a run. Returns whether an earlier run is resumed."""
  goes_on = open_run_folder(workdir, config)
  if not goes_on:
    # From now on these files say which cases are trained on, even if the data changes.
    write_text(workdir / "folds.json", fold.to_json())
    if fold.boxes:
      write_text(workdir / "boxes.json", boxes_to_json(fold.boxes))
  # Of a resumed run too: changes may have been accepted, and an earlier version recorded nothing.
  if data:
    data.write(workdir)
  return goes_on
