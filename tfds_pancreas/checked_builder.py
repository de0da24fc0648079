"""The base of every builder of real scans: each case is read, checked and reported.

A builder says where its cases lie and how one is read:

  class Builder(CheckedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION = "one paragraph"
    LABELS: ClassVar = {"pancreas": 1}
    MANUAL_DOWNLOAD_INSTRUCTIONS = "what belongs where under --manual_dir"

    def find_cases(self, root):
      return {"train": [...]}  # of each case something with an id that can be pickled

    def reader(self):
      return read_case  # of the module's top level, or functools.partial of one

and has configs `native`, `iso2mm`, `iso1mm` and any other `iso<k>mm`, parallel reading, the stop
that names all bad cases, `skip_bad_cases`, build_report.json and contact sheets.
"""

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from attn_unet_jax.runtime.errors import UserError
from tfds_pancreas.checked_case import CaseFiles, CheckedCase
from tfds_pancreas.contact_sheet import last_number, tile
from tfds_pancreas.grids import GridConfig, grid_config, to_record
from tfds_pancreas.parts import Made, Part
from tfds_pancreas.record_builder import RecordBuilder
from tfds_pancreas.records import volume_info
from tfds_pancreas.report import Report


class CheckedBuilder(RecordBuilder):
  """Real scans and labels from files.

  Attributes:
    DESCRIPTION: one paragraph about the collection.
    LABELS: name and value of each label; a builder whose config decides overrides `labels`.
    RULES: thresholds of the checks, for the report.
  """

  DESCRIPTION: ClassVar[str]
  LABELS: ClassVar[Mapping[str, int]] = {}
  RULES: ClassVar[Mapping[str, Any]] = {}
  BUILDER_CONFIGS: ClassVar[Sequence[GridConfig]] = tuple(
    grid_config(name) for name in ("native", "iso2mm", "iso1mm")
  )

  def __init__(self, *, skip_bad_cases: bool = False, **options: Any):
    self._skip_bad_cases = skip_bad_cases
    super().__init__(**options)

  @staticmethod
  def make_config(name: str) -> GridConfig:
    """The config of a name that is not listed, such as 'iso1.5mm'.

    Raises:
      ValueError: no grid is called so.
    """
    return grid_config(name)

  @abc.abstractmethod
  def find_cases(self, root: Path) -> Mapping[str, Sequence[CaseFiles]]:
    """Every case under the folder of `--manual_dir`, by split.

    What is wrong with one case (a file missing, two of a kind) is for the reader to say.

    Raises:
      UserError: nothing usable at all is there.
    """

  @abc.abstractmethod
  def reader(self) -> Callable[[Any], CheckedCase]:
    """A function that can be pickled, from what `find_cases` found to the case, read and checked.

    It raises no UserError: what is wrong with a case ends in its `problems`.
    """

  @property
  def labels(self) -> Mapping[str, int]:
    """Name and value of each label."""
    return self.LABELS

  @property
  def excluded(self) -> Mapping[str, str]:
    """Reason by id, of cases that are left out unseen."""
    return {}

  @property
  def expected_ids(self) -> Sequence[str]:
    """The ids of the whole collection, where that is known; the report lists what is absent."""
    return ()

  def _info(self) -> tfds.core.DatasetInfo:
    return volume_info(self, self.labels, self.DESCRIPTION)

  def cases(self, manual_dir: Path | None) -> Mapping[str, Sequence[CaseFiles]]:
    """Every case that was found and is not excluded."""
    assert manual_dir is not None
    found = self.find_cases(manual_dir)
    self.info.metadata["labels"] = dict(self.labels)  # the files may have told their names
    return {
      split: [case for case in cases if case.id not in self.excluded]
      for split, cases in found.items()
    }

  def maker(self) -> Callable[[Any], Made]:
    """Reads, checks and stores on the config's grid."""
    outlined = self.labels.get("pancreas")
    return MakeRecord(self.reader(), self.builder_config.spacing_mm, outlined)

  def finish(self, folder: Path, parts: Sequence[Part]) -> None:
    """Stops at bad cases, and writes the report beside the records.

    Raises:
      UserError: names every bad case with its figures.
    """
    name = f"{self.name}/{self.builder_config.name}"
    report = Report(name, self.RULES, self.excluded, self.expected_ids, parts)
    report.require(skip_bad_cases=self._skip_bad_cases)
    report.write(folder)


@dataclass(frozen=True)
class MakeRecord:
  """From the files of a case to its record, or to what is wrong with it; can be pickled.

  Attributes:
    read: the builder's reader.
    spacing_mm: of the isotropic grid, or None.
    outlined: label value that the picture outlines; None outlines all.
  """

  read: Callable[[Any], CheckedCase]
  spacing_mm: float | None
  outlined: int | None = None

  def __call__(self, files: CaseFiles) -> Made:
    """Reads a case and, if it is good, makes its record and its picture."""
    case = self.read(files)
    made = Made(case.id, None, case.figures, case.problems)
    if case.pair is None or case.problems:
      return made
    try:
      made.record = to_record(case.id, *case.pair, self.spacing_mm)
    except UserError as error:
      made.problems.append(str(error))
      return made
    label = case.pair.label.array
    shown = label if self.outlined is None else label == self.outlined
    made.picture = tile(case.pair.image.array, shown, last_number(case.id))
    return made
