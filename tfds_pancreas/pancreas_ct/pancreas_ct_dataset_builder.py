"""The TFDS builder of TCIA Pancreas-CT."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from tfds_pancreas.checked_builder import CheckedBuilder
from tfds_pancreas.checked_case import CheckedCase
from tfds_pancreas.grids import GridConfig, make_grid_config
from tfds_pancreas.label_checks import FLIP_MARGIN, SOFT_TISSUE_HU, SPACING_MM
from tfds_pancreas.pancreas_ct.pancreas_case import read_pancreas_case
from tfds_pancreas.pancreas_ct.pancreas_files import (
  CASES,
  CHECK_LIST,
  PancreasCaseFiles,
  find_pancreas_cases,
  format_case_id,
)

# Older papers trained and tested on all 82: their folds need the duplicates.
_KEPT = "_82"
# A scan of the training set that came back in the test set would flatter every result.
_DUPLICATES = {
  format_case_id(number): "the scan of PANCREAS_0002 again, cropped differently (withdrawn by the "
  "collection in 2020); the configs that end in _82 keep it"
  for number in (25, 70)
}


@dataclass(eq=False)
class PancreasConfig(GridConfig):
  """A grid, and whether the withdrawn cases 25 and 70 are kept."""

  duplicates: bool = False


def make_config(name: str) -> GridConfig:
  """Makes the config of a name such as 'native', 'iso2mm', 'iso1.5mm' or 'iso2mm_82'.

  Raises:
    ValueError: no grid is called so.
  """
  kept = name.endswith(_KEPT)
  about = "82 cases, the scan of PANCREAS_0002 three times" if kept else "80 cases"
  grid = name.removesuffix(_KEPT)
  return make_grid_config(name, PancreasConfig, about, grid, duplicates=kept)


class Builder(CheckedBuilder):
  """The builder of Pancreas-CT from DICOM series and NIfTI labels, which are aligned by rule."""

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
  # `build` asks the class for configs that are not listed, such as iso1.5mm_82.
  make_config = staticmethod(make_config)

  def find_cases(self, root: Path) -> Mapping[str, Sequence[PancreasCaseFiles]]:
    """Finds scans and labels by their case number."""
    return {"train": find_pancreas_cases(root)}

  def get_case_reader(self) -> Callable[[PancreasCaseFiles], CheckedCase]:
    """Returns the function that reads, aligns and checks a case."""
    return functools.partial(read_pancreas_case, judge=self.judge)

  @property
  def case_exclusions(self) -> Mapping[str, str]:
    """The duplicates with the reason, unless the config keeps them."""
    return {} if self.builder_config.duplicates else _DUPLICATES

  @property
  def collection_ids(self) -> Sequence[str]:
    """The ids of all 82 cases."""
    return [format_case_id(number) for number in range(1, CASES + 1)]
