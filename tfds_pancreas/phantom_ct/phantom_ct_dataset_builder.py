"""The TFDS builder of the phantoms: a fixed list of cases, each from its own seed."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import tensorflow_datasets as tfds

from tfds_pancreas.abdomen.organs import ORGANS
from tfds_pancreas.abdomen.paint import paint_ct
from tfds_pancreas.phantom_ct.anatomy import label_map
from tfds_pancreas.records import Record, VolumeConfig, volume_info

DESCRIPTION = """Procedural abdominal CT: label maps of organs drawn from a seed, with the pancreas
among look-alike loops of bowel, painted in Hounsfield units. No patient's data."""


@dataclass(eq=False)
class PhantomConfig(VolumeConfig):
  """How many cases, and how they are scanned.

  Attributes:
    cases: number of cases by split; ids count on through the splits.
    spacing: range in mm of the pixels' size, and the slices' thickness, drawn per case.
    extent: mm across the field of view, per axis.
  """

  cases: dict[str, int] = field(default_factory=dict)
  spacing: tuple[tuple[float, float], float] = ((2.5, 2.8), 3.0)
  extent: tuple[float, float, float] = (318.0, 266.0, 258.0)


class Builder(tfds.core.GeneratorBasedBuilder):
  """Abdominal CT phantoms with a label map of all organs."""

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
    return volume_info(self, ORGANS, DESCRIPTION)

  def _split_generators(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, Iterator[tuple[str, Record]]]:
    generators, first = {}, 0
    for split, count in self.builder_config.cases.items():
      generators[split] = self._generate_examples(range(first, first + count))
      first += count
    return generators

  def _generate_examples(self, numbers: range) -> Iterator[tuple[str, Record]]:
    # NumPy and SciPy let go of the interpreter lock, so threads do share the work.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
      for record in pool.map(lambda number: draw_case(number, self.builder_config), numbers):
        yield record["id"], record


def draw_case(number: int, config: PhantomConfig) -> Record:
  """One phantom as a record; the same number and config give the same bits."""
  (low, high), thickness = config.spacing
  pixel = round(float(np.random.default_rng((number, 1)).uniform(low, high)), 3)
  spacing = (pixel, pixel, thickness)
  x, y, z = (round(mm / step) for mm, step in zip(config.extent, spacing, strict=True))
  labels, affine = label_map((number, 2), (x, y, z), spacing)
  image = paint_ct(labels, (number, 3), spacing=spacing)
  return {"id": f"phantom_{number:04d}", "image": image, "label": labels, "affine": affine}
