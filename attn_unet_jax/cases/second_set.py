"""The second data set of a run, `data.also`, whose cases train beside those of its own."""

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path

from attn_unet_jax.cases import folds
from attn_unet_jax.cases.dataset import open_dataset
from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.cases.working_cases import WorkingCases
from attn_unet_jax.labels import parse_mapping
from attn_unet_jax.runtime.errors import UserError


def choose_second_cases(data: DataOptions, own: Collection[str]) -> list[str]:
  """Returns the ids of the cases of the second set that train.

  They are the training part of `data.also_folds`, or of the set's own division, or all cases.

  Args:
    data: the run's options of the data.
    own: the cases of the run's own set, in any part.

  Raises:
    UserError: the set is missing, its folds do not fit it, or a case of it is called as one of the
      run's own.
  """
  options = second_options(data)
  dataset = open_dataset(options)
  ids: Sequence[str] = dataset.ids
  if options.folds or dataset.parts is not None:
    ids = folds.choose_split(dataset.ids, dataset.parts, options.folds, 0)[0].training
  # A case that is tested must not train, and by its name alone nobody could tell.
  if both := sorted(set(ids) & set(own)):
    raise UserError(
      f"config.data.also={data.also}: {len(both)} of its training cases are called as cases of the "
      f"run's own set, such as {both[0]}; rename them, or leave them out by "
      "--config.data.also_folds=FILE.json"
    )
  return list(ids)


def open_second_set(data: DataOptions, classes: Sequence[str], ids: Sequence[str]) -> WorkingCases:
  """Opens the second set of a run.

  Args:
    data: the run's options of the data.
    classes: the classes of the network; those that the set does not name are none of its values.
    ids: the cases that train.

  Raises:
    UserError: the set is missing, labels none of the classes, or has lost a case.
  """
  options = second_options(data)
  dataset = open_dataset(options)
  mapping = parse_mapping(options.labels, dataset.label_names, "config.data.also_labels")
  aligned = mapping.align_to(classes)
  if not any(aligned.values):
    raise UserError(
      f"config.data.also_labels={options.labels!r}: none of the run's classes {', '.join(classes)}"
    )
  if not ids:
    raise UserError(
      f"config.data.also={data.also}: all cases of the run are gone; put them back, or choose "
      "another --workdir"
    )
  if gone := sorted(set(ids) - set(dataset.ids)):
    raise UserError(
      f"config.data.also={data.also}: {len(gone)} cases of the run are no longer there, such as "
      f"{gone[0]}; put them back, choose another --workdir, or go on without them by "
      "--config.data.accept_changes=true"
    )
  return WorkingCases(ids, dataset, aligned, options, thin=True, place=1)


def list_gone_cases(data: DataOptions, ids: Sequence[str]) -> list[str]:
  """Lists the cases that are no longer in the second set of a run, sorted.

  Args:
    data: the run's options of the data.
    ids: the cases of the second set that train.

  Raises:
    UserError: the set is missing.
  """
  return sorted(set(ids) - set(open_dataset(second_options(data)).ids))


def second_options(data: DataOptions) -> DataOptions:
  """Returns the options of the data with the second set in place of the run's own."""
  # A name of records, such as `phantom_ct/demo`, is no path in the folder of the start.
  is_folder = Path(data.also).is_dir()
  return dataclasses.replace(
    data,
    dataset="" if is_folder else data.also,
    folder=data.also if is_folder else "",
    labels=data.also_labels or data.labels,
    folds=data.also_folds,
    fold=0,
    # Otherwise the second set would have itself as a second one.
    also="",
  )
