"""The TFDS builder of the labels of Gibson et al. on Pancreas-CT and BTCV.

Read in public loaders and code, not in the release itself: file names, values, the columns
`publisher` and `original_id` of cropping.csv. Not known: how the labels of Pancreas-CT lie on their
scans (see `placement`; the build decides by figures and reports them), and in which axes and
whether inclusively cropping.csv counts. So scans are not cropped: the row of the table stands in
the report, and outside of that box organs may be unlabelled.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from tfds_pancreas.checked_builder import CheckedBuilder
from tfds_pancreas.checked_case import CheckedCase
from tfds_pancreas.checks import FLIP_MARGIN, SOFT_TISSUE_HU
from tfds_pancreas.gibson_ct.case import read_case
from tfds_pancreas.gibson_ct.layout import CHECK_LIST, GibsonCase, find_cases
from tfds_pancreas.nifti_case import Meaning
from tfds_pancreas.pancreas_ct.layout import case_id

# Labelled in BTCV's scans only: background here, so that all cases mean the same. Kidney (right),
# aorta, vena cava, portal and splenic vein, both adrenals.
_NOT_IN_ALL = (2, 8, 9, 10, 12, 13)
_DUPLICATES = {
  case_id(number): "the scan of PANCREAS_0002 again, withdrawn by Pancreas-CT in 2020"
  for number in (25, 70)
}


class Builder(CheckedBuilder):
  """Eight organs on scans of two collections; the ids are those of `pancreas_ct` and `btcv`."""

  VERSION = tfds.core.Version("1.0.0")
  DESCRIPTION = """Labels of Gibson et al. 2018 (Automatic multi-organ segmentation on abdominal CT
with Dense V-Networks, doi 10.1109/TMI.2018.2806309; Zenodo 1169361) on 43 scans of Pancreas-CT and
47 of BTCV: eight organs, complete within the box of cropping.csv only."""
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

  def find_cases(self, root: Path) -> Mapping[str, Sequence[GibsonCase]]:
    """Labels and the scans that they name."""
    return {"train": find_cases(root)}

  def reader(self) -> Callable[[GibsonCase], CheckedCase]:
    """Reads, places and checks a case."""
    replaced = dict.fromkeys(_NOT_IN_ALL, 0)
    return functools.partial(read_case, meaning=Meaning(self.LABELS, replaced))

  @property
  def excluded(self) -> Mapping[str, str]:
    """The duplicates that Pancreas-CT has withdrawn."""
    return _DUPLICATES
