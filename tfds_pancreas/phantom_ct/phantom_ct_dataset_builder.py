"""The TFDS builder of the phantoms: a fixed list of cases, each from its own seed."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import tensorflow_datasets as tfds

from tfds_pancreas.abdomen.organs import ORGANS
from tfds_pancreas.case_parts import MadeCase
from tfds_pancreas.phantom_ct.phantom_case import PhantomCase, PhantomConfig, make_phantom
from tfds_pancreas.record_builder import RecordBuilder
from tfds_pancreas.records import make_volume_info

DESCRIPTION = """Procedural abdominal CT: label maps of organs drawn from a seed, with the pancreas
among look-alike loops of bowel, painted in Hounsfield units. No patient's data."""


class Builder(RecordBuilder):
  """The builder of abdominal CT phantoms with a label map of all organs."""

  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = (
    PhantomConfig(
      name="tiny",
      description="8 cases of 10 mm voxels, for tests.",
      cases={"train": 4, "validation": 2, "test": 2},
      spacing=((9.6, 10.0), 10.5),
      shards=2,
    ),
    PhantomConfig(
      name="demo",
      description="66 cases of about 2.7 x 2.7 x 3 mm voxels.",
      cases={"train": 48, "validation": 6, "test": 12},
    ),
  )

  def _info(self) -> tfds.core.DatasetInfo:
    return make_volume_info(self, ORGANS, DESCRIPTION)

  def list_cases(self, manual_dir: Path | None) -> Mapping[str, Sequence[PhantomCase]]:
    """Lists the phantoms of each split; numbers count on, so no two splits share a patient."""
    del manual_dir  # phantoms are made from nothing
    found, first = {}, 0
    for split, count in self.builder_config.cases.items():
      found[split] = [PhantomCase(number) for number in range(first, first + count)]
      first += count
    return found

  def get_case_maker(self) -> Callable[[PhantomCase], MadeCase]:
    """Returns the function that draws a phantom by the config."""
    return partial(make_phantom, config=self.builder_config)
