"""The TFDS builder of the phantoms: a fixed list of cases, each from its own seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from tfds_pancreas.abdomen.organs import ORGANS
from tfds_pancreas.abdomen.paint import paint_ct
from tfds_pancreas.parts import Made
from tfds_pancreas.phantom_ct.anatomy import label_map
from tfds_pancreas.record_builder import RecordBuilder
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


class Phantom(NamedTuple):
  """A case to be drawn."""

  number: int

  @property
  def id(self) -> str:
    """7 -> 'phantom_0007'."""
    return f"phantom_{self.number:04d}"


class Builder(RecordBuilder):
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

  def cases(self, manual_dir: Path | None) -> Mapping[str, Sequence[Phantom]]:
    """Numbers count on through the splits."""
    del manual_dir
    found, first = {}, 0
    for split, count in self.builder_config.cases.items():
      found[split] = [Phantom(number) for number in range(first, first + count)]
      first += count
    return found

  def maker(self) -> Callable[[Phantom], Made]:
    """Draws by the config."""
    return partial(make_phantom, config=self.builder_config)


def make_phantom(phantom: Phantom, config: PhantomConfig) -> Made:
  """Draws a phantom; there is nothing to be said of it."""
  return Made(phantom.id, draw_case(phantom.number, config))


def draw_case(number: int, config: PhantomConfig) -> Record:
  """One phantom as a record; the same number and config give the same bits."""
  (low, high), thickness = config.spacing
  pixel = round(float(np.random.default_rng((number, 1)).uniform(low, high)), 3)
  spacing = (pixel, pixel, thickness)
  x, y, z = (round(mm / step) for mm, step in zip(config.extent, spacing, strict=True))
  labels, affine = label_map((number, 2), (x, y, z), spacing)
  image = paint_ct(labels, (number, 3), spacing=spacing)
  return {"id": Phantom(number).id, "image": image, "label": labels, "affine": affine}
