"""Whether the organs of a label map lie as in a body, by which wrong names are found."""

import numpy as np

from attn_unet_jax.volumes.box import bounding_slices
from attn_unet_jax.volumes.volume import Volume
from tfds_pancreas.abdomen.organs import ALL_ORGANS

# The first one of each pair lies to the right of the second one.
RIGHT_TO_LEFT = (
  ("liver", "stomach"),
  ("liver", "spleen"),
  ("gallbladder", "spleen"),
  ("kidney_right", "kidney_left"),
)


def find_misplaced(organs: Volume) -> str:
  """Returns in words which organs lie on the wrong side, '' if all are where they should be.

  Their centres of mass are compared, of those that are there. A patient whose organs are mirrored
  (one of some 10,000) is found too.

  Args:
    organs: uint8 [X, Y, Z] with values of ALL_ORGANS on canonical axes, so that X rises to the
      right.
  """
  places = {name: _find_middle(organs, name) for pair in RIGHT_TO_LEFT for name in pair}
  wrong = [
    f"{right} {left_mm - right_mm:.0f} mm to the left of {left}"
    for right, left in RIGHT_TO_LEFT
    if (right_mm := places[right]) is not None
    and (left_mm := places[left]) is not None
    and right_mm < left_mm
  ]
  return ", ".join(wrong)


def _find_middle(organs: Volume, name: str) -> float | None:
  """Returns the mean place of an organ along X in mm, None if it is not there."""
  mask = organs.array == ALL_ORGANS[name]
  box = bounding_slices(mask)
  if box is None:
    return None
  counts = np.count_nonzero(mask[box], axis=(1, 2))
  middle: float = np.average(np.arange(box[0].start, box[0].stop), weights=counts)
  return middle * organs.spacing[0]
