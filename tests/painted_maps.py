"""Maps of some organs, whose whole anatomy is known: phantoms with the rest taken away."""

from functools import cache

import numpy as np

from attn_unet_jax.volumes.volume import Volume
from tfds_pancreas.abdomen.organs import ORGANS
from tfds_pancreas.phantom_ct.anatomy import draw_label_map

SHAPE, SPACING = (40, 34, 32), (8.0, 8.0, 8.0)
KEPT = ("spleen", "kidney_left", "gallbladder", "liver", "stomach", "pancreas", "duodenum")


@cache
def draw_whole_map(number: int) -> Volume:
  """Draws a phantom's whole map."""
  return Volume(*draw_label_map((number, 2), SHAPE, SPACING))


@cache
def draw_partial_map(number: int) -> Volume:
  """Draws a phantom's map with the organs alone that maps of real patients usually have."""
  labels = draw_whole_map(number).array
  kept = np.isin(labels, [ORGANS[organ] for organ in KEPT])
  return Volume(np.where(kept, labels, 0).astype(np.uint8), draw_whole_map(number).affine)
