"""One phantom: how it is described, and how it is drawn."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from tfds_pancreas.abdomen.paint import paint_ct
from tfds_pancreas.case_parts import MadeCase
from tfds_pancreas.phantom_ct.anatomy import draw_label_map
from tfds_pancreas.records import Record, VolumeConfig


@dataclass(eq=False)
class PhantomConfig(VolumeConfig):
  """A number of phantoms, and how they are scanned.

  Attributes:
    cases: number of cases by split; ids count on through the splits.
    spacing: range in mm of the pixels' size, and the slices' thickness, drawn per case.
    extent: mm across the field of view, per axis.
  """

  cases: dict[str, int] = field(default_factory=dict)
  spacing: tuple[tuple[float, float], float] = ((2.5, 2.8), 3.0)
  extent: tuple[float, float, float] = (318.0, 266.0, 258.0)


class PhantomCase(NamedTuple):
  """A phantom to be drawn, known by its number."""

  number: int

  @property
  def id(self) -> str:
    """The record's id: 'phantom_0007' for 7."""
    return f"phantom_{self.number:04d}"


def make_phantom(phantom: PhantomCase, config: PhantomConfig) -> MadeCase:
  """Draws a phantom; it has no figures and no problems."""
  return MadeCase(phantom.id, draw_phantom_record(phantom.number, config))


def draw_phantom_record(number: int, config: PhantomConfig) -> Record:
  """Draws one phantom as a record; equal numbers and configs give equal bits."""
  # Each kind of draw has a seed of its own, so that a change of one leaves the others alone.
  (low, high), thickness = config.spacing
  pixel = round(float(np.random.default_rng((number, 1)).uniform(low, high)), 3)
  spacing = (pixel, pixel, thickness)
  x, y, z = (round(mm / step) for mm, step in zip(config.extent, spacing, strict=True))
  labels, affine = draw_label_map((number, 2), (x, y, z), spacing)
  image = paint_ct(labels, (number, 3), spacing=spacing)
  return {"id": PhantomCase(number).id, "image": image, "label": labels, "affine": affine}
