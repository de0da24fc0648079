"""The runs of the single folds in the folder of a run of all folds."""

import collections
from collections.abc import Iterator, Sequence
from pathlib import Path

from attn_unet_jax.cases.folds import read_folds
from attn_unet_jax.config.stored import load_config
from attn_unet_jax.runs.folder import has_progress, name_fold
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import read_json_object


def list_fold_runs(workdir: Path) -> list[Path]:
  """Lists the folders of the folds of a run of all folds; none of any other run.

  Raises:
    UserError: there is no run, or its list of folds is missing.
  """
  if load_config(workdir / "config.json").data.fold != "all":
    return []
  # By the list and not by the folders: one that is missing has to be missed.
  count = len(read_folds(workdir / "folds.json")["folds"])
  return [workdir / name_fold(number) for number in range(count)]


def expand_fold_runs(workdirs: Sequence[Path]) -> list[Path]:
  """Returns runs with the folds of each run of all folds in its place.

  Raises:
    UserError: there is no run, a fold is not trained yet, or a run is there twice, as a fold is
      that is named beside the run of all folds.
  """
  members = [member for workdir in workdirs for member in _expand_run(workdir)]
  # By resolved path: a run under two names would count twice in the mean.
  counts = collections.Counter(member.resolve() for member in members)
  if twice := [member for member in members if counts[member.resolve()] > 1]:
    names = ",".join(map(str, workdirs))
    raise UserError(f"--workdir={names}: a run is there twice, {twice[0]}; name it once")
  return members


def _expand_run(workdir: Path) -> Iterator[Path]:
  folders = list_fold_runs(workdir)
  for folder in folders:
    if not has_progress(folder):
      raise UserError(
        f"{folder}: is not trained yet; finish {workdir} by attn_unet_jax.main, or name the folds "
        "that are trained, with commas between them"
      )
    record = read_json_object(folder / "run.json", "put it right or remove it")
    # Not refused: its best checkpoint so far can predict.
    if record.get("exit") != "done":
      print_line(f"warning: {folder} is not trained to its end")
  # Any other run stands for itself.
  yield from folders or [workdir]
