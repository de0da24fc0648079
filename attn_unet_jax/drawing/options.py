"""How slices of CT are drawn."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SliceStyle:
  """The look of a slice.

  Attributes:
    window_hu: the HU that are black and white; by default the usual window of the abdomen.
    outline_px: the width of the classes' outlines.
  """

  window_hu: tuple[float, float] = (-160.0, 240.0)
  outline_px: int = 2
