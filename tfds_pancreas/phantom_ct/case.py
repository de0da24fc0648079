"""One phantom: how it is described, and how it is drawn."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tfds_pancreas.abdomen.paint import paint_ct
from tfds_pancreas.parts import Made
from tfds_pancreas.phantom_ct.anatomy import label_map
from tfds_pancreas.records import Record, VolumeConfig


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
