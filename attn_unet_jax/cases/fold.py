"""A data set, the meaning of its labels and one fold of it: the data of a run."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from attn_unet_jax.cases import folds
from attn_unet_jax.cases.boxes import Boxes, check_boxes, read_boxes
from attn_unet_jax.cases.dataset import Dataset, open_dataset
from attn_unet_jax.cases.joined_cases import CaseSequence, JoinedCases
from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.cases.second_set import choose_second_cases, open_second_set
from attn_unet_jax.cases.working_cases import WorkingCases
from attn_unet_jax.labels import LabelMapping, parse_mapping
from attn_unet_jax.runtime.errors import UserError


@dataclasses.dataclass(frozen=True)
class DataFold:
  """A fold of a data set.

  `listing` is the list of folds that it comes from, with the cases of the second data set; of
  `data.fold=all`, `split` pools them all. `boxes` restrict each case to a part; None means whole
  scans.
  """

  data: DataOptions
  dataset: Dataset
  mapping: LabelMapping
  split: folds.CaseSplit
  listing: dict[str, Any]
  boxes: Boxes | None = None

  def load(self, part: str) -> CaseSequence:
    """Returns the cases of `training`, `validation` or `test`, prepared when they are read."""
    ids = getattr(self.split, part)
    # Losses and scores of the other parts are measured against all labels.
    thin = part == "training"
    cases = WorkingCases(ids, self.dataset, self.mapping, self.data, thin, boxes=self.boxes)
    if not (thin and self.data.also):
      return cases
    # Opened here alone: a run is scored and used without its second set.
    ids = self.listing[folds.ALSO]
    return JoinedCases(cases, open_second_set(self.data, self.mapping.classes, ids))

  def to_json(self) -> str:
    """Formats the list of folds as a file for `--config.data.folds`."""
    return json.dumps(self.listing, indent=1) + "\n"

  def describe(self) -> str:
    """Describes classes and parts in one line for the screen."""
    parts = ", ".join(f"{len(getattr(self.split, part))} {part}" for part in folds.PARTS)
    described = f"classes {self.mapping.describe()}; {parts} cases (folds {self.listing['name']!r})"
    if not self.data.also:
      return described
    also = f"{len(self.listing[folds.ALSO])} training cases of {self.data.also}"
    return f"{described}; {also} for {self.data.also_share:.3g} of the patches"


def open_fold(
  data: DataOptions, written: Path | None = None, *, without_gone: bool = False
) -> DataFold:
  """Opens the configured data set and chooses the configured fold.

  Args:
    data: the run's options of the data.
    written: the list of folds that the run wrote when it began, with its boxes in the same
      folder. They stay valid even if the data changes: no case may move from training to test.
    without_gone: leave out the cases of that list that are no longer in the data.

  Raises:
    UserError: the data is missing; or labels, fold or boxes do not fit it; or the run's list of
      folds is missing.
  """
  if written and not written.exists():
    raise UserError(
      f"{written}: not found; restore it. A run that attn_unet_jax.convert made has no data: "
      "evaluate --config.data.folder=DIR scores it on any data, and another run starts from it "
      f"with --config.init.workdir={written.parent}"
    )
  dataset = open_dataset(data)
  mapping = parse_mapping(data.labels, dataset.label_names)
  source = str(written) if written else data.folds
  split, listing = folds.choose_split(
    dataset.ids, dataset.parts, source, data.fold, without_gone=without_gone
  )
  if written is None:
    # A list that another run wrote names the cases of that run's second set.
    listing.pop(folds.ALSO, None)
  if data.also and folds.ALSO not in listing:
    listing = {**listing, folds.ALSO: choose_second_cases(data, split.ids)}
  boxes, path = None, Path(data.boxes)
  if data.boxes:
    # The run's copy counts, like its folds; `path` only names the boxes in the message.
    boxes = read_boxes(written.with_name("boxes.json") if written else path)
    check_boxes(boxes, [case for part in folds.PARTS for case in getattr(split, part)], path)
  return DataFold(data, dataset, mapping, split, listing, boxes)
