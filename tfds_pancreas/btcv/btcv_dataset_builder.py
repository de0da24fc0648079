"""The TFDS builder of BTCV (Multi-Atlas Labeling Beyond the Cranial Vault, abdomen).

The layout and the thirteen values are what public loaders agree on; no file of the collection
itself was at hand.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti_folder import list_nifti_files
from tfds_pancreas.checked_builder import CheckedBuilder
from tfds_pancreas.checked_case import CheckedCase
from tfds_pancreas.folders import take_single_files, walk_folders
from tfds_pancreas.nifti_case import LabelMeaning, NiftiCaseFiles, read_nifti_case

CHECK_LIST = (
  "BTCV must be downloaded by hand (Abdomen/RawData.zip of synapse.org, syn3193805) and unpacked: "
  "--manual_dir holds, at any depth, Training/img/img0001.nii.gz and "
  "Training/label/label0001.nii.gz; Testing has no labels and is not looked at"
)
# Scan and label have no name in common, only their number.
_NUMBERED = re.compile(r"(?:img|label)(\d{4})")


class Builder(CheckedBuilder):
  """The builder of BTCV's training scans from NIfTI files, whose headers are trusted."""

  VERSION = tfds.core.Version("1.0.0")
  DESCRIPTION = """BTCV abdomen (Landman et al. 2015, doi 10.7303/syn3193805): portal-venous CT of
patients with liver metastases or ventral hernia, 30 of them with thirteen organs outlined."""
  # Organs are called as in phantoms and in gibson_ct, so that one `data.labels` fits them all.
  LABELS: ClassVar = {
    "spleen": 1,
    "kidney_right": 2,
    "kidney_left": 3,
    "gallbladder": 4,
    "esophagus": 5,
    "liver": 6,
    "stomach": 7,
    "aorta": 8,
    "vena_cava": 9,
    "portal_splenic_vein": 10,
    "pancreas": 11,
    "adrenal_right": 12,
    "adrenal_left": 13,
  }
  MANUAL_DOWNLOAD_INSTRUCTIONS = CHECK_LIST

  def find_cases(self, root: Path) -> Mapping[str, Sequence[NiftiCaseFiles]]:
    """Finds images and labels by their number; the record's id is `img0001`."""
    images, labels = (_find_numbered_files(root, kind) for kind in ("img", "label"))
    # Of either kind: a number that lacks one of its two files is a bad case for the report.
    numbers = sorted(images.keys() | labels.keys())
    if not numbers:
      raise UserError(f"--manual_dir={root}: no Training/img and Training/label. {CHECK_LIST}")
    # Called as the image is: gibson_ct, which labels the same scans, has these ids too.
    return {"train": [NiftiCaseFiles(f"img{n}", images.get(n), labels.get(n)) for n in numbers]}

  def get_case_reader(self) -> Callable[[NiftiCaseFiles], CheckedCase]:
    """Returns the function that reads and checks a case."""
    meaning = LabelMeaning(self.LABELS, {})
    return functools.partial(read_nifti_case, meaning=meaning, judge=self.judge)


def _find_numbered_files(root: Path, kind: str) -> Mapping[str, Path]:
  """Finds every `Training/KIND/KIND0001.nii.gz` under a folder, by its number."""
  found: defaultdict[str, list[Path]] = defaultdict(list)
  for folder, _ in walk_folders(root):
    # Folders called img are in Testing too, whose scans have no labels.
    if folder.parts[-2:] == ("Training", kind):
      for name, path in list_nifti_files(folder).items():
        if match := _NUMBERED.fullmatch(name):
          found[match[1]].append(path)
  return take_single_files(found)
