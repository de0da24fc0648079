"""The TFDS builder of a plain folder of NIfTI files, in the layout that training reads directly."""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti_folder import read_label_names
from tfds_pancreas.checked_builder import CheckedBuilder
from tfds_pancreas.checked_case import CheckedCase
from tfds_pancreas.grids import GridConfig, make_grid_config
from tfds_pancreas.nifti_case import LabelMeaning, NiftiCaseFiles, find_nifti_pairs, read_nifti_case

CHECK_LIST = (
  "--manual_dir must hold imagesTr/NAME.nii.gz (CT in HU) and labelsTr/NAME.nii.gz under the same "
  'names; a dataset.json beside them names the label values, {"labels": {"1": "pancreas"}}, '
  "else 1 is pancreas"
)
_LARGEST = 255  # records hold labels in a byte


@dataclass(eq=False)
class FolderConfig(GridConfig):
  """A grid, and what the collection is called."""

  # Nothing depends on it, but two collections then have two data sets.
  collection: str = ""


def make_config(name: str) -> GridConfig:
  """Makes the config of a name such as 'native', or 'iso2mm_mine' for a collection `mine`.

  Raises:
    ValueError: no grid is called so, or the collection's name is no name of a folder.
  """
  grid, underscore, collection = name.partition("_")
  # The collection becomes part of a folder's name: no separator may be in it.
  if underscore and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", collection):
    raise ValueError("a collection after the _ is called by letters, digits, '_', '-' and '.'")
  return make_grid_config(name, FolderConfig, collection, grid, collection=collection)


class Builder(CheckedBuilder):
  """The builder of own scans: NIfTI files with any labels, which dataset.json names."""

  VERSION = tfds.core.Version("1.0.0")
  DESCRIPTION = "A folder of CT scans and their labels, from NIfTI files."
  BUILDER_CONFIGS = tuple(make_config(name) for name in ("native", "iso2mm", "iso1mm"))
  MANUAL_DOWNLOAD_INSTRUCTIONS = CHECK_LIST
  make_config = staticmethod(make_config)

  def __init__(self, **options: Any):
    # For now: TFDS asks for the info before `find_cases` has read dataset.json.
    self._names: Mapping[str, int] = {"pancreas": 1}
    super().__init__(**options)

  def find_cases(self, root: Path) -> Mapping[str, Sequence[NiftiCaseFiles]]:
    """Finds images and labels by name, and reads the names of the label values."""
    self._names = read_label_names(root) or self._names
    beyond = {name: value for name, value in self._names.items() if not 0 <= value <= _LARGEST}
    if beyond:
      raise UserError(
        f"{root / 'dataset.json'}: label values {beyond} are not within 0 to {_LARGEST}; renumber"
      )
    return {"train": find_nifti_pairs(root)}

  def get_case_reader(self) -> Callable[[NiftiCaseFiles], CheckedCase]:
    """Returns the function that reads and checks a case."""
    # A scan in which nothing is labelled is as good as any: a healthy one among tumours.
    meaning = LabelMeaning(self._names, {}, may_be_empty=True)
    return functools.partial(read_nifti_case, meaning=meaning, judge=self.judge)

  @property
  def label_values(self) -> Mapping[str, int]:
    """The names and values of dataset.json, once the cases have been found."""
    return self._names
