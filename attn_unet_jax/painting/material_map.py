"""From a label map of a whole abdomen to what its voxels consist of. On the host, once a case."""

from collections.abc import Mapping
from math import ceil

import numpy as np

from attn_unet_jax.painting.materials import (
  FIRST_CONTENT,
  HOLLOW,
  LAYER_ENDS_MM,
  NAMES,
  STRETCHES,
  VISCERAL_FAT,
  content_number,
)
from attn_unet_jax.painting.visceral_fat import find_visceral_fat
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.box import bounding_slices
from tfds_pancreas.abdomen.hollow import find_deep_part, measure_height
from tfds_pancreas.abdomen.noise import draw_smooth_noise
from tfds_pancreas.abdomen.organs import ALL_ORGANS

Spacing = tuple[float, float, float]
_STRETCH_MM = 40.0  # about the length of bowel that is filled by one content
_WAY_OUT = (
  "complete label maps by python -m tfds_pancreas.build --dataset=painted_ct/maps, and train on "
  "these, or leave out --config.painting.enabled"
)


def check_names(names: Mapping[str, int] | None, data: str) -> None:
  """Checks that the labels of a data set are those of whole abdomens, which can be painted.

  Args:
    names: the value of each label by its name, if the data set has names.
    data: the data set, for the message.

  Raises:
    UserError: they are not.
  """
  named = dict(names or {})
  # Without fat, all that lies between the organs would be painted as air.
  if missing := [name for name in ("fat", "pancreas") if name not in named]:
    raise UserError(
      f"config.painting.enabled: {data} has no label called {missing[0]}, so that it is no map of "
      f"a whole abdomen; {_WAY_OUT}"
    )
  if unknown := sorted(name for name, value in named.items() if ALL_ORGANS.get(name) != value):
    raise UserError(
      f"config.painting.enabled: {data} has labels {unknown[:5]} with names or values that "
      f"painted_ct does not write; {_WAY_OUT}"
    )


def check_values(labels: np.ndarray, source: str) -> None:
  """Checks that each value of a label map is one that can be painted.

  Args:
    labels: a label map, any integer type.
    source: its file or case, for the message.

  Raises:
    UserError: one is not, such as a value without a name, which `check_names` does not see.
  """
  low, high = labels.min(initial=0), labels.max(initial=0)
  if low >= 0 and high < FIRST_CONTENT:
    return
  # For the message alone: it sorts all voxels of a scan.
  present = np.unique(labels)
  unknown = present[(present < 0) | (present >= FIRST_CONTENT)].tolist()
  raise UserError(
    f"{source}: label values {unknown[:8]} are not among those that can be painted, 0 to "
    f"{FIRST_CONTENT - 1}; {_WAY_OUT}"
  )


def find_materials(organs: np.ndarray, spacing: Spacing) -> np.ndarray:
  """Finds the material of every voxel, a number of `materials`.

  Args:
    organs: values of ALL_ORGANS, any integers [X, Y, Z] on canonical axes, so that gas rises
      along Y.
    spacing: millimetres between voxels.

  Returns:
    uint8 [X, Y, Z]: organs, with the inside of hollow ones divided into stretches and layers, and
    the fat between the viscera apart from that beneath the skin.
  """
  assert organs.min(initial=0) >= 0
  assert organs.max(initial=0) < FIRST_CONTENT == len(NAMES)
  # By this type a patch of materials is told from one of HU.
  materials = organs.astype(np.uint8)
  materials[find_visceral_fat(organs, spacing)] = VISCERAL_FAT
  for organ, kind in HOLLOW.items():
    mask = organs == ALL_ORGANS[organ]
    box = bounding_slices(mask)
    if box is None:
      continue
    inside = mask[box]
    # Padded, as the filter mirrors at the border of its array: the box is as narrow as the organ.
    widths = [(ceil(2 * kind.wall / step),) * 2 for step in spacing]
    padded = find_deep_part(np.pad(inside, widths), kind.wall, spacing)
    lumen = padded[
      tuple(slice(low, low + n) for (low, _), n in zip(widths, inside.shape, strict=True))
    ]
    layer = np.digitize(measure_height(inside, spacing), LAYER_ENDS_MM)
    # The same stretches in every run: which of them hold what is drawn in the step.
    field = draw_smooth_noise(np.random.default_rng(0), inside.shape, spacing, _STRETCH_MM)
    stretch = np.digitize(field, np.linspace(-0.5, 0.5, STRETCHES + 1)[1:-1])
    table = np.array(
      [
        [content_number(organ, s, n) for n in range(len(LAYER_ENDS_MM) + 1)]
        for s in range(STRETCHES)
      ],
      np.uint8,
    )
    materials[box][lumen] = table[stretch, layer][lumen]
  return materials
