"""Trains any run, from its config to its tested checkpoint: one network, all stages, all folds."""

from pathlib import Path

from attn_unet_jax.cases.boxes import check_same_boxes
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.config.stored import to_json
from attn_unet_jax.runs import folder as run_folder
from attn_unet_jax.runs.writers import check_writers
from attn_unet_jax.runtime import hosts
from attn_unet_jax.training.mesh import pin_device_count
from attn_unet_jax.workflows.fold_places import FoundDevices
from attn_unet_jax.workflows.run_data import open_run_data
from attn_unet_jax.workflows.run_folder import keep_earlier_defaults
from attn_unet_jax.workflows.stages.pipeline import train_stages
from attn_unet_jax.workflows.train import train_and_test
from attn_unet_jax.workflows.train_folds import train_folds


def train_run(config: RunConfig, workdir: Path, devices: FoundDevices | None = None) -> None:
  """Trains a run of one network, of all stages or of all folds, or resumes it, and tests it.

  All hosts call this. `devices` are those on which all folds are trained side by side.

  Raises:
    UserError: config, data and devices do not fit each other; nothing has been written then.
    Interrupted: a signal came; the state is saved.
  """
  remedy = f"start all with the same flags, or, {hosts.SEPARATE_RUNS_HINT}"
  hosts.check_same_on_hosts("--config", to_json(config), remedy)
  # Only the primary host writes, and needs their packages.
  hosts.run_on_primary(check_writers, config.train.writers)
  # Pinned first: the number of devices is then compared with that of the run.
  config = keep_earlier_defaults(pin_device_count(config), workdir)
  if config.data.fold == "all":
    train_folds(config, workdir, train_fold, devices)
  else:
    train_fold(config, workdir)


def train_fold(config: RunConfig, workdir: Path, listing: Path | None = None) -> None:
  """Trains a run on one fold; `listing` is as of `open_run_data`."""
  if config.stages.count > 1:
    # Stages open their own folds.
    train_stages(config, workdir, listing)
    return
  # A run that has begun keeps its own cases and boxes.
  data = open_run_data(config, workdir, listing)
  if data.fold.boxes and hosts.run_on_primary(run_folder.has_progress, workdir):
    check_same_boxes(Path(config.data.boxes), data.fold.boxes)
  train_and_test(data.config, data.fold, workdir, data=data)
