"""The TFDS builder of the Medical Segmentation Decathlon's Task07.

The layout (imagesTr, labelsTr, dataset.json, file names, values 1 pancreas and 2 cancer, 281
labelled scans) is what public loaders and quotations of its dataset.json agree on; no file of the
collection itself was at hand.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import read_json
from attn_unet_jax.volumes.nifti_folder import nifti_stem, read_label_names
from tfds_pancreas.checked_builder import CheckedBuilder
from tfds_pancreas.checked_case import CheckedCase
from tfds_pancreas.grids import GridConfig, make_grid_config
from tfds_pancreas.nifti_case import LabelMeaning, NiftiCaseFiles, find_nifti_pairs, read_nifti_case

CHECK_LIST = (
  "Task07_Pancreas.tar must be downloaded by hand from http://medicaldecathlon.com and unpacked: "
  "--manual_dir holds Task07_Pancreas/dataset.json, imagesTr/pancreas_001.nii.gz and "
  "labelsTr/pancreas_001.nii.gz, or is that folder"
)
_NAMES = {"background": 0, "pancreas": 1, "cancer": 2}  # as its dataset.json has them
_KEPT = "_tumour"


@dataclass(eq=False)
class DecathlonConfig(GridConfig):
  """A grid, and whether the masses keep a label of their own."""

  # It is part of the config's name, so that records of both kinds never share a folder.
  tumour: bool = False


def make_config(name: str) -> GridConfig:
  """Makes the config of a name such as 'native', 'iso2mm', 'iso1.5mm' or 'iso2mm_tumour'.

  Raises:
    ValueError: no grid is called so.
  """
  kept = name.endswith(_KEPT)
  about = "Tumours and cysts labelled apart" if kept else "Tumours and cysts are pancreas"
  return make_grid_config(name, DecathlonConfig, about, name.removesuffix(_KEPT), tumour=kept)


class Builder(CheckedBuilder):
  """The builder of the Decathlon's Task07 from NIfTI files, whose headers are trusted."""

  VERSION = tfds.core.Version("1.0.0")
  DESCRIPTION = """Medical Segmentation Decathlon, Task07 (Antonelli et al. 2022, Simpson et al.
2019; Memorial Sloan Kettering, CC BY-SA 4.0): portal-venous CT of patients with pancreatic masses,
281 of them with pancreas and mass outlined. The 139 without public labels are left out."""
  BUILDER_CONFIGS = tuple(make_config(name) for name in ("native", "iso2mm", "iso1mm"))
  MANUAL_DOWNLOAD_INSTRUCTIONS = CHECK_LIST
  make_config = staticmethod(make_config)

  def __init__(self, **options: Any):
    # Empty for now: TFDS asks for the info before `find_cases` has read dataset.json.
    self._listed: Sequence[str] = ()
    super().__init__(**options)

  def find_cases(self, root: Path) -> Mapping[str, Sequence[NiftiCaseFiles]]:
    """Finds images and labels by name; imagesTs has no labels and is not looked at."""
    task = _find_task_folder(root)
    names = read_label_names(task)
    # Every task has this layout. Another one's organs must not become a pancreas.
    if names != _NAMES:
      raise UserError(
        f"{task / 'dataset.json'}: its labels are {names}, those of Task07 are {_NAMES}; is this "
        "another task? folder_ct takes any"
      )
    self._listed = _read_training_ids(task)
    return {"train": find_nifti_pairs(task)}

  def get_case_reader(self) -> Callable[[NiftiCaseFiles], CheckedCase]:
    """Returns the function that reads a case; masses become pancreas unless they are kept."""
    replaced = {} if self.builder_config.tumour else {2: 1}
    meaning = LabelMeaning(self.label_values, replaced)
    return functools.partial(read_nifti_case, meaning=meaning, judge=self.judge)

  @property
  def label_values(self) -> Mapping[str, int]:
    """The pancreas, and `tumour` where it is kept."""
    return {"pancreas": 1} | ({"tumour": 2} if self.builder_config.tumour else {})

  @property
  def collection_ids(self) -> Sequence[str]:
    """The cases that dataset.json lists."""
    return self._listed


def _find_task_folder(root: Path) -> Path:
  """Returns the folder with dataset.json: the given one, or the only one in it."""
  # The archive unpacks into a folder of its own: either that or its parent may be given.
  inside = sorted(path.parent for path in root.glob("*/dataset.json"))
  found = [root] if (root / "dataset.json").is_file() else inside
  if len(found) != 1:
    named = f": {', '.join(map(str, found))}; name one of them" if found else f". {CHECK_LIST}"
    raise UserError(f"--manual_dir={root}: {len(found)} folders with a dataset.json{named}")
  return found[0]


def _read_training_ids(task: Path) -> Sequence[str]:
  """Reads the ids under `training` in dataset.json; none where it has no such list."""
  # The list only serves the report, which names the cases that are absent.
  with suppress(KeyError, TypeError):
    training = read_json(task / "dataset.json")["training"]
    return [nifti_stem(Path(case["image"])) for case in training]
  return ()
