"""The base of every builder of real scans: each case is read, checked and reported.

A builder says where its cases lie and how one is read:

  class Builder(CheckedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION = "one paragraph"
    LABELS: ClassVar = {"pancreas": 1}
    MANUAL_DOWNLOAD_INSTRUCTIONS = "what belongs where under --manual_dir"

    def find_cases(self, root):
      return {"train": [...]}  # of each case something with an id that can be pickled

    def get_case_reader(self):
      return read_case  # of the module's top level, or functools.partial of one

The base class adds the configs `native`, `iso2mm`, `iso1mm` and any other `iso<k>mm`, parallel
reading, the stop that names all bad cases, `skip_bad_cases`, build_report.json and contact sheets.
"""

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from attn_unet_jax.runtime.acceptance import NOTHING, Acceptance
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.judge import Judge
from tfds_pancreas.build_report import BuildReport
from tfds_pancreas.case_parts import CasePart, MadeCase
from tfds_pancreas.checked_case import CaseInput, CheckedCase
from tfds_pancreas.contact_sheet import draw_tile, find_last_number
from tfds_pancreas.grids import GridConfig, make_grid_config, make_record
from tfds_pancreas.record_builder import RecordBuilder
from tfds_pancreas.records import make_volume_info


class CheckedBuilder(RecordBuilder):
  """A builder of real scans and labels from files.

  Attributes:
    DESCRIPTION: one paragraph about the collection.
    LABELS: name and value of each label; a builder whose config decides overrides `label_values`.
    judge: decides which scans are refused; readers of cases take it.
    RULES: thresholds of the checks, for the report.
  """

  DESCRIPTION: ClassVar[str]
  LABELS: ClassVar[Mapping[str, int]] = {}
  RULES: ClassVar[Mapping[str, Any]] = {}
  BUILDER_CONFIGS: ClassVar[Sequence[GridConfig]] = tuple(
    make_grid_config(name) for name in ("native", "iso2mm", "iso1mm")
  )

  def __init__(self, *, skip_bad_cases: bool = False, accept: Acceptance = NOTHING, **options: Any):
    self._skip_bad_cases, self.judge = skip_bad_cases, Judge(accept)
    super().__init__(**options)

  @staticmethod
  def make_config(name: str) -> GridConfig:
    """Makes the config of a name that is not listed, such as 'iso1.5mm'.

    Raises:
      ValueError: no grid is called so.
    """
    return make_grid_config(name)

  @abc.abstractmethod
  def find_cases(self, root: Path) -> Mapping[str, Sequence[CaseInput]]:
    """Finds every case under the folder of `--manual_dir`, by split.

    What is wrong with one case (a file missing, two of a kind) is for the reader to say.

    Raises:
      UserError: nothing usable at all is there.
    """

  @abc.abstractmethod
  def get_case_reader(self) -> Callable[[Any], CheckedCase]:
    """Returns a function that can be pickled, from a case that was found to the case, checked.

    It raises no UserError: what is wrong with a case ends in its `problems`.
    """

  @property
  def label_values(self) -> Mapping[str, int]:
    """The name and the value of each label."""
    return self.LABELS

  @property
  def case_exclusions(self) -> Mapping[str, str]:
    """The ids of cases that are left out unseen, each with the reason."""
    return {}

  @property
  def collection_ids(self) -> Sequence[str]:
    """The ids of the whole collection, where that is known; the report lists what is absent."""
    return ()

  def _info(self) -> tfds.core.DatasetInfo:
    return make_volume_info(self, self.label_values, self.DESCRIPTION)

  def list_cases(self, manual_dir: Path | None) -> Mapping[str, Sequence[CaseInput]]:
    """Lists every case that was found and is not excluded."""
    assert manual_dir is not None
    found = self.find_cases(manual_dir)
    # TFDS asked for the info before any file was read. By now the files may have told their names.
    self.info.metadata["labels"] = dict(self.label_values)
    return {
      split: [case for case in cases if case.id not in self.case_exclusions]
      for split, cases in found.items()
    }

  def get_case_maker(self) -> Callable[[Any], MadeCase]:
    """Returns the function that reads and checks a case and brings it to the config's grid."""
    outlined = self.label_values.get("pancreas")
    return RecordMaker(self.get_case_reader(), self.builder_config.spacing_mm, outlined)

  def review_parts(self, folder: Path, parts: Sequence[CasePart]) -> None:
    """Stops at bad cases, and writes the report beside the records.

    Raises:
      UserError: names every bad case with its figures.
    """
    name = f"{self.name}/{self.builder_config.name}"
    accepted = sorted(self.judge.accept)
    report = BuildReport(
      name, self.RULES, self.case_exclusions, self.collection_ids, parts, accepted
    )
    report.require_good_cases(skip_bad_cases=self._skip_bad_cases)
    self.doubts = report.list_doubts()
    report.write_files(folder)


@dataclass(frozen=True)
class RecordMaker:
  """A function from the files of a case to its record, or to what is wrong; it can be pickled.

  Attributes:
    read: the builder's reader.
    spacing_mm: of the isotropic grid, or None.
    outlined: label value that the picture outlines; None outlines all.
  """

  read: Callable[[Any], CheckedCase]
  spacing_mm: float | None
  outlined: int | None = None

  def __call__(self, case_input: CaseInput) -> MadeCase:
    """Reads a case and, if it is good, makes its record and its picture."""
    case = self.read(case_input)
    figures = case.figures | ({"doubts": case.doubts} if case.doubts else {})
    made = MadeCase(case.id, None, figures, case.problems)
    if case.pair is None or case.problems:
      return made
    try:
      made.record = make_record(case.id, *case.pair, self.spacing_mm)
    except UserError as error:
      made.problems.append(str(error))
      return made
    # The picture is of the scan's own voxels, where a label that is off by one shows best.
    label = case.pair.label.array
    shown = label if self.outlined is None else label == self.outlined
    made.picture = draw_tile(case.pair.image.array, shown, find_last_number(case.id))
    return made
