"""The TFDS builder of TCIA Pancreas-CT."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from tfds_pancreas.checked_builder import CheckedBuilder
from tfds_pancreas.checked_case import CheckedCase
from tfds_pancreas.checks import FLIP_MARGIN, SOFT_TISSUE_HU, SPACING_MM
from tfds_pancreas.grids import GridConfig, grid_config
from tfds_pancreas.pancreas_ct.case import read_case
from tfds_pancreas.pancreas_ct.layout import CASES, CHECK_LIST, CaseFiles, case_id, find_cases

_KEPT = "_82"
_DUPLICATES = {
  case_id(number): "the scan of PANCREAS_0002 again, cropped differently (withdrawn by the "
  "collection in 2020); the configs that end in _82 keep it"
  for number in (25, 70)
}


@dataclass(eq=False)
class PancreasConfig(GridConfig):
  """A grid, and whether the withdrawn cases 25 and 70 are kept."""

  duplicates: bool = False


def make_config(name: str) -> GridConfig:
  """The config of a name such as 'native', 'iso2mm', 'iso1.5mm' or 'iso2mm_82'.

  Raises:
    ValueError: no grid is called so.
  """
  kept = name.endswith(_KEPT)
  about = "82 cases, the scan of PANCREAS_0002 three times" if kept else "80 cases"
  grid = name.removesuffix(_KEPT)
  return grid_config(name, PancreasConfig, about, grid, duplicates=kept)


class Builder(CheckedBuilder):
  """Pancreas-CT from DICOM series and NIfTI labels, aligned by rule and checked case by case."""

  VERSION = tfds.core.Version("1.0.0")
  DESCRIPTION = """TCIA Pancreas-CT (Roth et al. 2016, doi 10.7937/K9/TCIA.2016.tNB1kqBU):
portal-venous abdominal CT of subjects without pancreatic lesions, the pancreas outlined slice by
slice. 80 scans; with the two withdrawn duplicates of PANCREAS_0002, 82."""
  LABELS: ClassVar = {"pancreas": 1}
  RULES: ClassVar = {
    "soft_tissue_hu": SOFT_TISSUE_HU,
    "flip_score": "share of soft tissue under the label minus sd / 250 HU",
    "flip_margin": FLIP_MARGIN,
    "slice_distance_margin_mm": SPACING_MM,
  }
  BUILDER_CONFIGS = tuple(make_config(name) for name in ("native", "iso2mm", "iso1mm"))
  MANUAL_DOWNLOAD_INSTRUCTIONS = CHECK_LIST
  make_config = staticmethod(make_config)

  def find_cases(self, root: Path) -> Mapping[str, Sequence[CaseFiles]]:
    """Scans and labels by their case number."""
    return {"train": find_cases(root)}

  def reader(self) -> Callable[[CaseFiles], CheckedCase]:
    """Reads, aligns and checks a case."""
    return read_case

  @property
  def excluded(self) -> Mapping[str, str]:
    """The duplicates, unless the config keeps them."""
    return {} if self.builder_config.duplicates else _DUPLICATES

  @property
  def expected_ids(self) -> Sequence[str]:
    """All 82."""
    return [case_id(number) for number in range(1, CASES + 1)]
