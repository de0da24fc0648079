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
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from attn_unet_jax.errors import UserError
from tfds_pancreas.checked_case import CaseFiles, CheckedCase
from tfds_pancreas.grids import GridConfig, grid_config, in_order, to_record
from tfds_pancreas.records import Record, volume_info
from tfds_pancreas.report import Report

# An open scan at 512 x 512 x 466 is 0.4 GB with its label, and twice that while it is read.
_WORKERS = min(os.cpu_count() or 1, 2)


class CheckedBuilder(tfds.core.GeneratorBasedBuilder):
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

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[str, Record]]]:
    found = self.find_cases(Path(dl_manager.manual_dir))
    _require_unique([case.id for cases in found.values() for case in cases])
    report = Report(
      f"{self.name}/{self.builder_config.name}", self.RULES, self.excluded, self.expected_ids
    )
    last = list(found)[-1]
    return {
      split: self._generate_examples(cases, report, last=split == last)
      for split, cases in found.items()
    }

  def _generate_examples(
    self, cases: Sequence[CaseFiles], report: Report, *, last: bool
  ) -> Iterator[tuple[str, Record]]:
    kept = [case for case in cases if case.id not in self.excluded]
    for case in in_order(self.reader(), kept, _WORKERS):
      report.add(case)
      if case.pair is not None and not case.problems:
        yield case.id, to_record(case.id, *case.pair, self.builder_config.spacing_mm)
    if last:
      report.require(skip_bad_cases=self._skip_bad_cases)
      report.write(self.data_path)  # still beside its place: the report comes with the records


def _require_unique(ids: Sequence[str]) -> None:
  twice = sorted({case for case in ids if ids.count(case) > 1})
  if twice:
    raise UserError(f"--manual_dir: {len(twice)} cases are there twice: {twice[:5]}; rename one")
