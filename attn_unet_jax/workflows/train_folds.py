"""Trains every fold of a list, each as an ordinary run in its own folder."""

from collections.abc import Callable
from pathlib import Path

from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.config.stored import find_differences, load_config
from attn_unet_jax.runs import folder as run_folder
from attn_unet_jax.runtime import hosts
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import read_json_object
from attn_unet_jax.workflows.fold_places import FoundDevices, list_places
from attn_unet_jax.workflows.model_card import write_card_after_training
from attn_unet_jax.workflows.parallel_folds import train_side_by_side
from attn_unet_jax.workflows.pool_scores import pool_scores
from attn_unet_jax.workflows.report_run import report_after_training
from attn_unet_jax.workflows.run_data import open_run_data
from attn_unet_jax.workflows.starting_run import open_starting_run
from attn_unet_jax.workflows.train import (
  check_training,
  describe_accepted,
  open_training_folder,
)

# Trains one fold: its config, its folder, and the list of folds.
TrainFold = Callable[[RunConfig, Path, Path], None]
_LISTING = "folds.json"


def train_folds(
  config: RunConfig, workdir: Path, train_fold: TrainFold, devices: FoundDevices | None = None
) -> None:
  """Trains the folds that are not finished, and pools the scores of all.

  The folder has the list of folds, `evaluation/` over all test cases, and the folders `fold_0`,
  `fold_1`, ..., each of which is a run. All hosts call this.

  Args:
    config: the config, of `data.fold=all`.
    workdir: the folder of the run.
    train_fold: trains one of the folds, or resumes it, and tests it.
    devices: those on which folds are trained side by side; None: one after the other.

  Raises:
    UserError: the list has one fold, or config, data and devices do not fit each other; nothing has
      been written then. Or a fold that was trained beside others failed.
    Interrupted: a signal came; the state is saved.
  """
  if devices and hosts.count_processes() > 1:
    raise UserError(
      "--parallel_folds: is for one host; leave it out, and all hosts train each fold"
    )
  data = open_run_data(config, workdir)
  count = len(data.fold.listing["folds"])
  if config.stages.count == 1:
    # Once for all folds, before the first of them has been trained for days.
    module = check_training(data.config, data.fold)
    # A fold that has begun no longer needs the run that it started from.
    if not hosts.run_on_primary(_have_all_begun, workdir, count):
      open_starting_run(data.config, module)
  hosts.run_on_primary(open_training_folder, data.config, data.fold, workdir, data)
  hosts.check_shared_path(workdir / _LISTING)
  with hosts.open_on_primary(
    run_folder.record_run, workdir, None, data.accepted, describe_accepted(config, data.fold)
  ):
    todo = _list_unfinished(data.config, workdir, count)
    # What this start accepts of the data is accepted in each fold.
    if devices:
      places, accepts = list_places(devices, len(todo)), config.data.accept_changes
      train_side_by_side(workdir, todo, places, accept_changes=accepts)
    else:
      for number in todo:
        print_line(f"fold {number} of {count}")
        train_and_describe(replace_keys(config, {"data.fold": number}), workdir, train_fold)
    # From files alone: one host is enough, and the folds may be of earlier starts.
    hosts.run_on_primary(pool_scores, workdir)
  last = run_folder.name_fold(count - 1)
  print_line(f"the run: {workdir}/evaluation over all folds, a run in each of fold_0 to {last}")


def train_and_describe(config: RunConfig, workdir: Path, train_fold: TrainFold) -> None:
  """Trains the fold of a config in its folder, and writes its card and its page.

  Args:
    config: the config of that fold.
    workdir: the run of all folds.
    train_fold: as of `train_folds`.
  """
  assert config.data.fold != "all"
  folder = workdir / run_folder.name_fold(config.data.fold)
  train_fold(config, folder, workdir / _LISTING)
  hosts.run_on_primary(write_card_after_training, folder)
  hosts.run_on_primary(report_after_training, folder)


def _list_unfinished(config: RunConfig, workdir: Path, count: int) -> list[int]:
  """Lists the folds that are not trained and tested yet, and names the others."""
  todo = []
  for number in range(count):
    folder, key = workdir / run_folder.name_fold(number), {"data.fold": number}
    if hosts.run_on_primary(is_finished, replace_keys(config, key), folder):
      print_line(f"fold {number} of {count}: is finished, {folder}")
    else:
      todo.append(number)
  return todo


def _have_all_begun(workdir: Path, count: int) -> bool:
  folders = (workdir / run_folder.name_fold(number) for number in range(count))
  return all(map(run_folder.has_progress, folders))


def is_finished(config: RunConfig, folder: Path) -> bool:
  """Returns whether a run of this config is trained and tested.

  Raises:
    UserError: its files are damaged.
  """
  # Without its scores a fold cannot be pooled, whatever its record says.
  if not (folder / "config.json").is_file() or not (folder / "evaluation" / "cases.csv").is_file():
    return False
  record = read_json_object(folder / "run.json", "remove it: the fold is then tested again")
  # Another number of epochs, or another rule of scoring, asks for more work.
  return record.get("exit") == "done" and not find_differences(
    load_config(folder / "config.json"), config
  )
