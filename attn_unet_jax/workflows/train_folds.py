"""Trains every fold of a list, one after the other, each as an ordinary run in its own folder."""

from collections.abc import Callable
from pathlib import Path

from attn_unet_jax.config.schema import RunConfig, replace_keys
from attn_unet_jax.config.stored import find_differences, load_config
from attn_unet_jax.runs import folder as run_folder
from attn_unet_jax.runtime import hosts
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.files import read_json_object
from attn_unet_jax.workflows.model_card import write_card_after_training
from attn_unet_jax.workflows.pool_scores import pool_scores
from attn_unet_jax.workflows.report_run import report_after_training
from attn_unet_jax.workflows.run_data import open_run_data
from attn_unet_jax.workflows.train import (
  check_training,
  describe_accepted,
  open_starting_run,
  open_training_folder,
)

# Trains one fold: its config, its folder, and the list of folds.
TrainFold = Callable[[RunConfig, Path, Path], None]


def train_folds(config: RunConfig, workdir: Path, train_fold: TrainFold) -> None:
  """Trains the folds that are not finished, and pools the scores of all.

  The folder has the list of folds, `evaluation/` over all test cases, and the folders `fold_0`,
  `fold_1`, ..., each of which is a run. All hosts call this.

  Args:
    config: the config, of `data.fold=all`.
    workdir: the folder of the run.
    train_fold: trains one of the folds, or resumes it, and tests it.

  Raises:
    UserError: the list has one fold, or config, data and devices do not fit each other; nothing has
      been written then.
    Interrupted: a signal came; the state is saved.
  """
  data = open_run_data(config, workdir)
  count = len(data.fold.listing["folds"])
  if config.stages.count == 1:
    module = check_training(data.config, data.fold)
    # A fold that has begun no longer needs the run that it started from.
    if not hosts.run_on_primary(_have_all_begun, workdir, count):
      open_starting_run(data.config, module)
  hosts.run_on_primary(open_training_folder, data.config, data.fold, workdir, data)
  listing = workdir / "folds.json"
  hosts.check_shared_path(listing)
  with hosts.open_on_primary(
    run_folder.record_run, workdir, None, data.accepted, describe_accepted(config, data.fold)
  ):
    for number in range(count):
      folder, key = workdir / run_folder.name_fold(number), {"data.fold": number}
      if hosts.run_on_primary(is_finished, replace_keys(data.config, key), folder):
        print_line(f"fold {number} of {count}: is finished, {folder}")
        continue
      print_line(f"fold {number} of {count}")
      # What this start accepts of the data is accepted in each fold.
      train_fold(replace_keys(config, key), folder, listing)
      hosts.run_on_primary(write_card_after_training, folder)
      hosts.run_on_primary(report_after_training, folder)
    hosts.run_on_primary(pool_scores, workdir)
  last = run_folder.name_fold(count - 1)
  print_line(f"the run: {workdir}/evaluation over all folds, a run in each of fold_0 to {last}")


def _have_all_begun(workdir: Path, count: int) -> bool:
  folders = (workdir / run_folder.name_fold(number) for number in range(count))
  return all(map(run_folder.has_progress, folders))


def is_finished(config: RunConfig, folder: Path) -> bool:
  """Returns whether a run of this config is trained and tested.

  Raises:
    UserError: its files are damaged.
  """
  if not (folder / "config.json").is_file() or not (folder / "evaluation" / "cases.csv").is_file():
    return False
  record = read_json_object(folder / "run.json", "remove it: the fold is then tested again")
  # Another number of epochs, or another rule of scoring, asks for more work.
  return record.get("exit") == "done" and not find_differences(
    load_config(folder / "config.json"), config
  )
