"""Opens another data set, to score how well a run generalises to it.

The run's classes are found in it by name; its other labels are background.
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attn_unet_jax.cases import folds
from attn_unet_jax.cases.boxes import check_boxes, read_boxes
from attn_unet_jax.cases.dataset import Dataset, open_dataset
from attn_unet_jax.cases.fold import DataFold
from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.resolve import check_data
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.config.stored import load_config
from attn_unet_jax.labels import LabelMapping, class_names, parse_mapping
from attn_unet_jax.runs.release import is_release, read_release
from attn_unet_jax.runtime.errors import UserError

_SHOWN = 15  # names on one line of the screen


@dataclasses.dataclass(frozen=True)
class OtherDataset:
  """A data set to score. Its cases are `fold.split.test`: all cases, or those of the chosen part.

  Attributes:
    name: the name of its folders in the run.
    about: its description in `summary.json`.
  """

  name: str
  fold: DataFold
  about: dict[str, Any]

  def describe(self) -> str:
    """Describes the set in one line, with its labels that count as background."""
    mapping, names = self.fold.mapping, self.fold.dataset.label_names or {}
    # The background itself needs no mention.
    others = [name for name, value in names.items() if value and value in mapping.background]
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    rest = f" (background: {', '.join(others[:_SHOWN])}{more})" if others else ""
    return f"{self.name}: {len(self.fold.split.test)} cases, classes {mapping}{rest}"


def open_other_for_runs(
  workdirs: Sequence[Path], run: RunConfig, changes: Mapping[str, Any], part: str | None
) -> OtherDataset:
  """Opens a data set that is not the runs' own, and says which cases of it they have seen.

  Args:
    workdirs: the folder of a run, or of several that are averaged; each may be a release.
    run: the config of the first.
    changes: as of `open_other_dataset`.
    part: the same.

  Raises:
    UserError: as of `open_other_dataset`, or a run's list of folds is damaged.
  """
  # A release has digests alone of the cases that it has seen, and no data set of its own.
  own = [workdir for workdir in workdirs if not is_release(workdir)]
  known = [workdir for workdir in own if (workdir / "folds.json").exists()]
  # Of a run without a list of cases, and of a release, no data set is its own.
  sets = [load_config(workdir / "config.json").data for workdir in known]
  other = open_other_dataset(
    run,
    changes,
    part,
    list_seen_in_runs(own) if own else None,
    sets if len(sets) == len(workdirs) else (),
  )
  seen = [other.about["seen_in_training"]] if own else []
  for workdir in workdirs:
    if workdir not in own:
      seen.append(read_release(workdir).find_seen(other.fold.split.test))
  found = None if None in seen else sorted({one for cases in seen for one in cases})
  return dataclasses.replace(other, about={**other.about, "seen_in_training": found})


def open_other_dataset(
  run: RunConfig,
  changes: Mapping[str, Any],
  part: str | None,
  seen: Sequence[str] | None,
  own: Sequence[DataOptions] = (),
) -> OtherDataset:
  """Opens a data set that is not the run's own.

  Args:
    run: the run's config.
    changes: keys of its `data` section that name the other set: `dataset` or `folder`; perhaps
      `dir`, `labels` (the run's classes in the other set's values or names), `folds`, `fold`.
    part: `training`, `validation` or `test` of the other set's folds; None: all its cases.
    seen: ids of the run's training and validation cases; None if they are unknown.
    own: the data of the runs that are scored; one that is that of all of them is no other one.

  Raises:
    UserError: no other set is named, it is missing, or it lacks a class of the run.
  """
  data = _other_data(run, changes, part)
  if own and all(describe_source(one) == describe_source(data) for one in own):
    raise UserError(
      f"{format_source(run.data)}: this is the run's own data set; leave out --config.data... to "
      "score its test cases, or choose others by --part"
    )
  name, dataset = _name_folder(data), open_dataset(data)
  mapping = _map_classes(
    dataset, class_names(run.data.labels), changes.get("labels"), format_source(data)
  )
  cases, listing = tuple(dataset.ids), {"name": "all cases", "folds": []}
  if part:
    split, listing = folds.choose_split(dataset.ids, dataset.parts, data.folds, data.fold)
    cases = getattr(split, part)
  boxes = None
  if path := data.boxes:
    boxes = read_boxes(Path(path))
    check_boxes(boxes, cases, path)
  # A data set that the run was not made for may still contain scans that it was trained on.
  about = {
    "data": describe_source(data),
    "labels": str(mapping),
    "part": part or "all",
    "seen_in_training": None if seen is None else sorted(set(cases) & set(seen)),
  }
  return OtherDataset(
    f"{name}/{part}" if part else name,
    # No training or validation: every case is to be scored.
    DataFold(data, dataset, mapping, folds.CaseSplit((), (), cases), listing, boxes),
    about,
  )


def list_seen_in_runs(workdirs: Sequence[Path]) -> list[str] | None:
  """Lists what any of several runs has seen, as of `list_seen_cases`; None where one is unknown."""
  each = [list_seen_cases(load_config(one / "config.json"), one / "folds.json") for one in workdirs]
  # A case that is in the list twice counts twice for no one.
  return None if None in each else list(dict.fromkeys(case for one in each for case in one or ()))


def list_seen_cases(run: RunConfig, listing: Path) -> list[str] | None:
  """Lists the ids of a run's training and validation cases; None if it has no list of folds.

  Those of its second data set count as well.

  Args:
    run: its config.
    listing: its list of folds, which is missing if `attn_unet_jax.convert` made the run.

  Raises:
    UserError: the list is damaged, or lacks the configured fold.
  """
  if not listing.exists():
    return None
  written = folds.read_folds(listing) | {"name": str(listing)}
  own = folds.pick_fold(written, run.data.fold)
  also = written.get(folds.ALSO, []) if run.data.also else []
  # Validation cases are seen as well, since they chose the checkpoint.
  return [*own["training"], *own["validation"], *also]


def _other_data(run: RunConfig, changes: Mapping[str, Any], part: str | None) -> DataOptions:
  """Returns the run's data options with the other set instead of its own."""
  if not (changes.get("dataset") or changes.get("folder")):
    raise UserError(
      f"--config.data.{next(iter(changes))}: name the other data set too, by --config.data.dataset "
      "or --config.data.folder"
    )
  if not part and changes.keys() & {"folds", "fold"}:
    raise UserError("--config.data.folds, --config.data.fold: name the part of the folds by --part")
  if run.data.boxes and "boxes" not in changes:
    raise UserError(
      "the run was trained inside boxes; give the boxes of this set by config.data.boxes"
    )
  # The run's folds and locations belong to its own set, and mean nothing in another one.
  other: dict[str, Any] = {"dataset": "", "folder": "", "folds": "", "fold": 0}
  other |= {key: value for key, value in changes.items() if key != "labels"}
  data = replace_keys(run, {f"data.{key}": value for key, value in other.items()}).data
  check_data(data)
  return data


def describe_source(data: DataOptions) -> dict[str, str]:
  """Returns the location of a data set; two of them are equal if the location is."""
  # Links are resolved, so that a link to the run's own data is recognised.
  if data.folder:
    return {"folder": os.path.realpath(data.folder)}
  return {"dataset": data.dataset, "dir": os.path.realpath(data.dir)}


def format_source(data: DataOptions) -> str:
  """Returns the location of a data set in words."""
  return " in ".join(describe_source(data).values())


def _name_folder(data: DataOptions) -> str:
  # The name becomes a folder in evaluation/ and predictions/.
  name = data.dataset.replace("/", "_") or Path(data.folder).resolve().name
  if name in ("", *folds.PARTS):
    raise UserError(
      f"{data.folder}: a folder called {name!r} would be taken for a part of the run's own "
      "data in evaluation/; rename it"
    )
  return name


def _map_classes(
  dataset: Dataset, classes: Sequence[str], labels: str | None, where: str
) -> LabelMapping:
  """Maps the values of the other set to the run's classes, in the run's order."""
  names = dataset.label_names
  # The values of several classes cannot be guessed.
  if labels is None and not names and len(classes) > 1:
    raise UserError(
      f"{where}: its labels have no names; give the value of each of the run's classes, "
      f"--config.data.labels={','.join(f'{name}=VALUE' for name in classes)}"
    )
  mapping = parse_mapping(labels, names) if labels is not None else None
  known = mapping.classes if mapping else names or classes
  # A class is called without the spaces of its label.
  missing = [name for name in classes if name not in {label.replace(" ", "") for label in known}]
  if missing:
    there = "--config.data.labels names" if mapping else "its labels are"
    raise UserError(
      f"{where}: no label is called {', '.join(missing)}; the run's classes are "
      f"{', '.join(classes)}, {there} {', '.join(known)}; say which is which by "
      f"--config.data.labels={','.join(f'{name}={_find_like(name, known)}' for name in classes)}"
    )
  # In the run's order, which its masks count in.
  found = (mapping or parse_mapping(",".join(classes), names)).restrict_to(classes)
  if not found.labelled_indices:
    raise UserError(
      f"{where}: config.data.labels={labels!r} labels none of the run's classes, "
      f"{', '.join(classes)}: nothing could be scored; give one of them a value"
    )
  return found


def _find_like(name: str, known: Iterable[str]) -> str:
  """Finds the label of that name, in upper or lower case; `NAME` if there is none."""
  return next((label for label in known if label.lower() == name.lower()), "NAME")
