"""A data set, the meaning of its labels and one fold of it: what a run works on."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from attn_unet_jax.cases import folds
from attn_unet_jax.cases.boxes import Boxes, check_boxes, read_boxes
from attn_unet_jax.cases.dataset import Dataset, open_dataset
from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.cases.working_cases import WorkingCases
from attn_unet_jax.labels import LabelMapping, parse_mapping
from attn_unet_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class DataFold:
  """One fold of a data set.

  `listing` is the list of folds that it comes from; `boxes` is the part of each case that is worked
  on, None all of it.
  """

  data: DataOptions
  dataset: Dataset
  mapping: LabelMapping
  split: folds.CaseSplit
  listing: dict[str, Any]
  boxes: Boxes | None = None

  def load(self, part: str) -> WorkingCases:
    """The cases of `training` (thinned, if so configured), `validation` or `test`, prepared."""
    ids = getattr(self.split, part)
    thin = part == "training"
    return WorkingCases(ids, self.dataset, self.mapping, self.data, thin, boxes=self.boxes)

  def to_json(self) -> str:
    """The list of folds, as it can be given to `--config.data.folds`."""
    return json.dumps(self.listing, indent=1) + "\n"

  def describe(self) -> str:
    """One line for the screen."""
    parts = ", ".join(f"{len(getattr(self.split, part))} {part}" for part in folds.PARTS)
    return f"classes {self.mapping.describe()}; {parts} cases (folds {self.listing['name']!r})"


def open_fold(data: DataOptions, written: Path | None = None) -> DataFold:
  """Opens the configured data set and chooses the configured fold.

  Args:
    data: the run's options of the data.
    written: the list of folds that the run wrote when it began, its boxes beside it. They hold
      from then on, whatever becomes of the data: no case may move from training to test.

  Raises:
    UserError: the data is not there, or the labels, the fold or the boxes do not fit it; or the
      run wrote no list.
  """
  if written and not written.exists():
    raise UserError(
      f"{written}: not found; bring it back. If attn_unet_jax.convert made this run, of no data: "
      "evaluate --config.data.folder=DIR scores it on any, and another run starts from it by "
      f"--config.init.workdir={written.parent}"
    )
  dataset = open_dataset(data)
  mapping = parse_mapping(data.labels, dataset.label_names)
  source = str(written) if written else data.folds
  split, listing = folds.choose_split(dataset.ids, dataset.parts, source, data.fold)
  boxes, path = None, Path(data.boxes)
  if data.boxes:
    boxes = read_boxes(written.with_name("boxes.json") if written else path)
    check_boxes(boxes, [case for part in folds.PARTS for case in getattr(split, part)], path)
  return DataFold(data, dataset, mapping, split, listing, boxes)
