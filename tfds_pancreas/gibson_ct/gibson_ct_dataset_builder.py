"""The TFDS builder of the labels of Gibson et al. on Pancreas-CT and BTCV.

Read in public loaders and code, not in the release itself: file names, values, the columns
`publisher` and `original_id` of cropping.csv. Not known: how the labels of Pancreas-CT lie on their
scans (see `label_placement`; the build decides by figures and reports them), and in which axes
cropping.csv counts and whether inclusively. So scans are not cropped: the row of the table stands
in the report, and outside of that box organs may be unlabelled.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from tfds_pancreas.checked_builder import CheckedBuilder
from tfds_pancreas.checked_case import CheckedCase
from tfds_pancreas.gibson_ct.gibson_case import read_gibson_case
from tfds_pancreas.gibson_ct.gibson_files import CHECK_LIST, GibsonCaseFiles, find_gibson_cases
from tfds_pancreas.label_checks import FLIP_MARGIN, SOFT_TISSUE_HU
from tfds_pancreas.nifti_case import LabelMeaning
from tfds_pancreas.pancreas_ct.pancreas_files import format_case_id

# Labelled in BTCV's scans only: background here, so that all cases mean the same. Kidney (right),
# aorta, vena cava, portal and splenic vein, both adrenals.
_NOT_IN_ALL = (2, 8, 9, 10, 12, 13)
_DUPLICATES = {
  format_case_id(number): "the scan of PANCREAS_0002 again, withdrawn by Pancreas-CT in 2020"
  for number in (25, 70)
}


class Builder(CheckedBuilder):
  """The builder of eight organs on scans of two collections, with the ids of those."""

  VERSION = tfds.core.Version("1.0.0")
  DESCRIPTION = """Labels of Gibson et al. 2018 (Automatic multi-organ segmentation on abdominal CT
with Dense V-Networks, doi 10.1109/TMI.2018.2806309; Zenodo 1169361) on 43 scans of Pancreas-CT and
47 of BTCV: eight organs, complete within the box of cropping.csv only."""
  # The values are the release's own, which go on from BTCV's thirteen: 14 is the duodenum.
  LABELS: ClassVar = {
    "spleen": 1,
    "kidney_left": 3,
    "gallbladder": 4,
    "esophagus": 5,
    "liver": 6,
    "stomach": 7,
    "pancreas": 11,
    "duodenum": 14,
  }
  RULES: ClassVar = {
    "soft_tissue_hu": SOFT_TISSUE_HU,
    "flip_score": "share of soft tissue under the label minus sd / 250 HU",
    "flip_margin": FLIP_MARGIN,
  }
  MANUAL_DOWNLOAD_INSTRUCTIONS = CHECK_LIST

  def find_cases(self, root: Path) -> Mapping[str, Sequence[GibsonCaseFiles]]:
    """Finds labels and the scans that they name."""
    return {"train": find_gibson_cases(root)}

  def get_case_reader(self) -> Callable[[GibsonCaseFiles], CheckedCase]:
    """Returns the function that reads, places and checks a case."""
    replaced = dict.fromkeys(_NOT_IN_ALL, 0)
    meaning = LabelMeaning(self.LABELS, replaced)
    return functools.partial(read_gibson_case, meaning=meaning, judge=self.judge)

  @property
  def case_exclusions(self) -> Mapping[str, str]:
    """The duplicates that Pancreas-CT has withdrawn, each with the reason."""
    return _DUPLICATES
