"""Opens the cases that several runs were tested on alike, to score the mean of their answers."""

from collections.abc import Sequence
from pathlib import Path

from attn_unet_jax.cases.fold import DataFold, open_fold
from attn_unet_jax.cases.folds import pick_fold, read_folds
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.config.stored import load_config
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.workflows.other_dataset import describe_source, format_source


def open_shared_fold(workdirs: Sequence[Path], run: RunConfig, part: str) -> DataFold:
  """Opens the fold of the first of several runs, if the others have the same cases in that part.

  A test case is then in no other part of any of them, so that none has learnt from it.

  Args:
    workdirs: the folders of the runs.
    run: the config of the first, with what is accepted.
    part: training, validation or test.

  Raises:
    UserError: their data or their cases differ, or a list of folds is missing or damaged.
  """
  first, *others = workdirs
  # As they were trained: the config that is given is of one network, also where a run has folds.
  own = _list_cases(first, part)
  for workdir in others:
    data = load_config(workdir / "config.json").data
    if data.labels != run.data.labels:
      raise UserError(
        f"{workdir}: has config.data.labels={data.labels}, and {first} has {run.data.labels}; name "
        "runs of the same labels"
      )
    if describe_source(data) != describe_source(run.data):
      raise UserError(
        f"{workdir}: its data is {format_source(data)}, and that of {first} is "
        f"{format_source(run.data)}; name the data set that is to be scored, by "
        "--config.data.dataset or --config.data.folder"
      )
    if own != _list_cases(workdir, part):
      raise UserError(
        f"{workdir}: has other {part} cases than {first}, which one of them may have learnt from; "
        "name runs that have the same, or another data set by --config.data.dataset"
      )
  return open_fold(run.data, first / "folds.json")


def _list_cases(workdir: Path, part: str) -> frozenset[str]:
  data = load_config(workdir / "config.json").data
  if data.fold == "all":
    raise UserError(
      f"{workdir}: a run of all folds, each of which has its own cases; name its folds, or it alone"
    )
  listing = read_folds(workdir / "folds.json") | {"name": str(workdir / "folds.json")}
  return frozenset(pick_fold(listing, data.fold)[part])
