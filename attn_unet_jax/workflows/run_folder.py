"""Opens the folder of a run: a new one, or one that goes on with its own config."""

from pathlib import Path

from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.config.stored import find_differences, load_config, to_json
from attn_unet_jax.runs.folder import has_progress, lock_folder
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import remove_unfinished_files, write_text

# Keys that say how and where a run is computed and not what: one that goes on may have others.
KEYS_THAT_MAY_CHANGE = (
  *("data.dir", "data.folder", "data.prepared", "data.source", "model.remat"),
  *("train.keep", "train.save_every", "train.skip_nonfinite"),
  *("parallel.data", "parallel.mode", "parallel.space"),
)


def open_run_folder(workdir: Path, config: RunConfig) -> bool:
  """Creates or resumes the folder of a run. Returns whether an earlier run is resumed.

  A run that ended before its first checkpoint has nothing to lose and starts again. One that is
  resumed may have other values of `KEYS_THAT_MAY_CHANGE`, and a line says which. The folder belongs
  to this process until it ends.

  Raises:
    UserError: it holds a run of another config (says what differs), another process is training
      it, or it cannot be written.
  """
  path = workdir / "config.json"
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    lock_folder(workdir)  # first: until then another process may be making it a run
    remove_unfinished_files(workdir)
    stored = load_config(path) if path.exists() else None  # a foreign file is refused
    resumes = stored is not None and has_progress(workdir)
    if stored is not None and resumes:
      _refuse_differences(workdir, stored, config)
    write_text(path, to_json(config))
  except OSError as error:
    raise UserError(f"--workdir={workdir}: cannot be written ({error.strerror})") from None
  return resumes


def _refuse_differences(workdir: Path, stored: RunConfig, config: RunConfig) -> None:
  """Refuses a config that computes something else; says what is computed in another way."""
  differing = find_differences(stored, config)
  fixed = {key: values for key, values in differing.items() if not _may_change(key, config)}
  if fixed:
    named = ", ".join(f"{key}: {old!r} there, {new!r} now" for key, (old, new) in fixed.items())
    raise UserError(f"{workdir}: holds a run of another config ({named}); choose another --workdir")
  if differing:
    named = ", ".join(f"{key}={new!r}, was {old!r}" for key, (old, new) in differing.items())
    print(f"{workdir} goes on with {named}", flush=True)


def _may_change(key: str, config: RunConfig) -> bool:
  """Not the devices, where batch statistics are each device's own."""
  if key == "train.epochs":
    return config.optimizer.schedule != "cosine"  # the others' rates do not know the last epoch
  local = config.parallel.batch_norm == "local"
  return key in KEYS_THAT_MAY_CHANGE and not (local and key.startswith("parallel."))
