"""Creates the folder of a run, or opens it to resume the run."""

import math
from pathlib import Path
from typing import Any

from attn_unet_jax.cases.digests import read_digests
from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.schema import RunConfig, flatten
from attn_unet_jax.config.stored import (
  EARLIER_DEFAULTS,
  find_differences,
  load_config,
  to_json,
)
from attn_unet_jax.runs.folder import has_progress, lock_folder
from attn_unet_jax.runs.trackers import forget_tracker_ids
from attn_unet_jax.runtime import hosts
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import remove_unfinished_files, write_text
from attn_unet_jax.training.checkpoint import list_saved_steps
from attn_unet_jax.workflows.fold_runs import list_fold_runs
from attn_unet_jax.workflows.quality_record import remove_quality
from attn_unet_jax.workflows.run_data import DIGESTS
from attn_unet_jax.workflows.steps_record import remove_record

# Keys that say how or where a run is computed rather than what: a resumed run may change them.
KEYS_THAT_MAY_CHANGE = (
  *("data.accept", "data.dir", "data.folder", "data.prepared", "data.source", "model.remat"),
  "inference.postprocess",
  *("evaluation.nsd_mm", "train.keep", "train.save_every", "train.skip_nonfinite"),
  "train.writers",
  *("parallel.data", "parallel.mode", "parallel.space"),
)


def open_run_folder(workdir: Path, config: RunConfig) -> bool:
  """Creates or resumes the folder of a run. Returns whether an earlier run is resumed.

  A run that ended before its first checkpoint has nothing to lose and starts again. One that is
  resumed may have other values of `KEYS_THAT_MAY_CHANGE`, and a line says which. The folder belongs
  to this process until it ends.

  Raises:
    UserError: the folder contains a run of another config (the message says what differs), another
      process is training it, or it cannot be written.
  """
  path = workdir / "config.json"
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    lock_folder(workdir)  # first: without the lock, another process may be creating the run
    # Under the lock no other process can be writing one.
    remove_unfinished_files(workdir)
    stored = load_config(path) if path.exists() else None  # raises for a foreign file
    resumes = stored is not None and has_progress(workdir)
    if stored is not None and resumes:
      _refuse_differences(workdir, stored, config)
    else:
      # Of an earlier network, whose steps would be taken for those of this one.
      remove_record(workdir)
      remove_quality(workdir)
      forget_tracker_ids(workdir)
    # For a resumed run too, whose config may have allowed changes.
    write_text(path, to_json(config))
  except OSError as error:
    raise UserError(f"--workdir={workdir}: cannot be written ({error.strerror})") from None
  return resumes


def keep_earlier_defaults(config: RunConfig, workdir: Path) -> RunConfig:
  """Returns the config of a run that is resumed, with the defaults of the version that began it.

  Where nothing is said, a run goes on as it began. All hosts call this.

  Raises:
    UserError: the run's config cannot be read.
  """
  kept = hosts.run_on_primary(_find_earlier_defaults, config, workdir)
  if kept:
    named = ", ".join(f"{key}={value}" for key, value in kept.items())
    print_line(f"{workdir} goes on with {named}, as it began; another run has the new default")
  return replace_keys(config, kept) if kept else config


def _find_earlier_defaults(config: RunConfig, workdir: Path) -> dict[str, Any]:
  path = workdir / "config.json"
  if not (path.exists() and has_progress(workdir)):
    return {}
  # Only where old and new default differ: any other value was asked for, and is not replaced.
  differing, today = find_differences(load_config(path), config), flatten(RunConfig())
  return {
    key: old
    for key, (old, new) in differing.items()
    if key in EARLIER_DEFAULTS and (old, new) == (EARLIER_DEFAULTS[key], today[key])
  }


def _refuse_differences(workdir: Path, stored: RunConfig, config: RunConfig) -> None:
  """Raises if a config changes the result of the run; prints the changes that are allowed."""
  differing = find_differences(stored, config)
  fixed = {
    key: values for key, values in differing.items() if not _may_change(key, config, workdir)
  }
  if fixed:
    named = ", ".join(f"{key}: {old!r} there, {new!r} now" for key, (old, new) in fixed.items())
    if list(fixed) == ["train.epochs"]:
      raise UserError(
        f"{workdir}: contains a run of another length ({named}); "
        f"{_explain_fixed_length(workdir, config)}"
      )
    raise UserError(
      f"{workdir}: contains a run of another config ({named}); choose another --workdir"
    )
  if "train.epochs" in differing:
    _refuse_fewer_epochs(workdir, config)
  if differing:
    named = ", ".join(f"{key}={new!r}, was {old!r}" for key, (old, new) in differing.items())
    print_line(f"{workdir} resumes with {named}")


def _explain_fixed_length(workdir: Path, config: RunConfig) -> str:
  """Says why a run cannot become longer or shorter, and what to do."""
  if config.stages.count > 1:
    return (
      "its stages that are finished would keep the old one, and the others have the new one; "
      "choose another --workdir"
    )
  return (
    "the rates of its cosine schedule depend on the last epoch, so that it cannot become longer "
    "or shorter. To train on from its best checkpoint, choose another --workdir and give "
    f"--config.init.workdir={workdir}"
  )


def _refuse_fewer_epochs(workdir: Path, config: RunConfig) -> None:
  """Raises if a run, or one of its folds, is beyond the last epoch of a config already."""
  for folder in (workdir, *list_fold_runs(workdir)):
    latest = max(list_saved_steps(folder / "checkpoints"), default=0)
    done = math.ceil(latest / config.train.steps_per_epoch)
    if config.train.epochs < done:
      raise UserError(
        f"config.train.epochs={config.train.epochs}: the newest checkpoint of {folder} is of epoch "
        f"{done} already; give {done} or more, or choose another --workdir"
      )


def _may_change(key: str, config: RunConfig, workdir: Path) -> bool:
  """Returns whether a resumed run may change this key."""
  if key == "train.epochs":
    # Only the cosine's learning rates depend on the last epoch. Stages that are finished are not
    # trained again, so that some would be shorter than the others.
    return config.optimizer.schedule != "cosine" and config.stages.count == 1
  if key == "data.also":
    return _is_second_set_known(config, workdir)
  # Local batch statistics are those of a device's patches: other devices would change the result.
  local = config.parallel.batch_norm == "local"
  return key in KEYS_THAT_MAY_CHANGE and not (local and key.startswith("parallel."))


def _is_second_set_known(config: RunConfig, workdir: Path) -> bool:
  """Returns whether a folder as second set is compared with what the run trained on before."""
  # Of a run without a second set there are no digests of one, and then it cannot gain one.
  known = read_digests(workdir / DIGESTS)
  has_known = known is not None and known.also is not None
  return has_known and bool(config.data.also) and Path(config.data.also).is_dir()
