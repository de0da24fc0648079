"""The TFDS builder of TCIA Pancreas-CT."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow_datasets as tfds

from tfds_pancreas.grids import GridConfig, in_order, spacing_of, to_record
from tfds_pancreas.pancreas_ct.case import read_case
from tfds_pancreas.pancreas_ct.layout import CHECK_LIST, CaseFiles, find_cases
from tfds_pancreas.pancreas_ct.report import DUPLICATES, Report
from tfds_pancreas.records import Record, volume_info

DESCRIPTION = """TCIA Pancreas-CT (Roth et al. 2016, doi 10.7937/K9/TCIA.2016.tNB1kqBU):
portal-venous abdominal CT of subjects without pancreatic lesions, the pancreas outlined slice by
slice. 80 scans; with the two withdrawn duplicates of PANCREAS_0002, 82."""
_KEPT = "_82"
# An open scan at 512 x 512 x 466 is 0.4 GB with its label, and twice that while it is read.
_WORKERS = min(os.cpu_count() or 1, 2)


@dataclass(eq=False)
class PancreasConfig(GridConfig):
  """A grid, and whether the withdrawn cases 25 and 70 are kept."""

  duplicates: bool = False


def make_config(name: str) -> PancreasConfig:
  """The config of a name such as 'native', 'iso2mm', 'iso1.5mm' or 'iso2mm_82'.

  Raises:
    ValueError: no grid is called so.
  """
  spacing = spacing_of(name.removesuffix(_KEPT))
  grid = f"{spacing:g} mm isotropic" if spacing else "each scan's own voxels"
  duplicates = name.endswith(_KEPT)
  cases = "82 cases, the scan of PANCREAS_0002 three times" if duplicates else "80 cases"
  return PancreasConfig(
    name=name, description=f"{cases}, {grid}.", spacing_mm=spacing, duplicates=duplicates
  )


class Builder(tfds.core.GeneratorBasedBuilder):
  """Pancreas-CT from DICOM series and NIfTI labels, aligned by rule and checked case by case."""

  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = tuple(make_config(name) for name in ("native", "iso2mm", "iso1mm"))
  MANUAL_DOWNLOAD_INSTRUCTIONS = CHECK_LIST
  make_config = staticmethod(make_config)

  def __init__(self, *, skip_bad_cases: bool = False, **options: Any):
    self._skip_bad_cases = skip_bad_cases
    super().__init__(**options)

  def _info(self) -> tfds.core.DatasetInfo:
    return volume_info(self, {"pancreas": 1}, DESCRIPTION)

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[str, Record]]]:
    excluded = {} if self.builder_config.duplicates else DUPLICATES
    cases = [case for case in find_cases(dl_manager.manual_dir) if case.id not in excluded]
    report = Report(f"{self.name}/{self.builder_config.name}", excluded)
    return {"train": self._generate_examples(cases, report)}

  def _generate_examples(
    self, cases: Sequence[CaseFiles], report: Report
  ) -> Iterator[tuple[str, Record]]:
    for case in in_order(read_case, cases, _WORKERS):
      report.add(case)
      if case.pair is not None and not case.problems:
        yield case.id, to_record(case.id, *case.pair, self.builder_config.spacing_mm)
    report.require(skip_bad_cases=self._skip_bad_cases)
    report.write(self.data_path)  # still beside its place: the report comes with the records
