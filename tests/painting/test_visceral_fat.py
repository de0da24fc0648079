"""Which fat lies between the viscera."""

import numpy as np
import pytest

from attn_unet_jax.painting.material_map import find_materials
from attn_unet_jax.painting.materials import VISCERAL_FAT
from attn_unet_jax.painting.visceral_fat import find_visceral_fat
from tfds_pancreas.abdomen.organs import ORGANS


def draw_belly(spacing):
  """A ring of muscle of 100 mm within fat and skin, organs in it, and air around all."""
  x, y = (np.arange(-150, 150, step) + step / 2 for step in spacing[:2])
  radius = np.hypot(x[:, None], y[None])[..., None] * np.ones(round(60 / spacing[2]))
  organs = np.full(radius.shape, ORGANS["background"], np.uint8)
  organs[radius < 140] = ORGANS["skin"]
  organs[radius < 137] = ORGANS["fat"]
  organs[radius < 100] = ORGANS["muscle"]
  organs[radius < 90] = ORGANS["fat"]
  organs[radius < 20] = ORGANS["pancreas"]
  return organs, radius


@pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), (7.5, 7.5, 10.0), (2.0, 3.0, 5.0)])
def test_the_fat_within_the_muscles_is_visceral(spacing):
  organs, radius = draw_belly(spacing)
  found = find_visceral_fat(organs, spacing)
  inner, outer = (organs == ORGANS["fat"]) & (radius < 90), radius > 110
  assert found[inner].mean() > 0.97
  assert not found[outer].any()
  assert not found[organs != ORGANS["fat"]].any()
  assert found[..., 0].sum() == found[..., -1].sum() > 0
  materials = find_materials(organs, spacing)
  np.testing.assert_array_equal(materials == VISCERAL_FAT, found)


def test_fat_alone_is_not_visceral_and_fat_in_an_organ_is():
  alone = np.full((9, 8, 8), ORGANS["fat"], np.uint8)
  assert not find_visceral_fat(alone, (3.0, 3.0, 3.0)).any()
  alone[[0, -1]] = ORGANS["liver"]
  assert find_visceral_fat(alone, (3.0, 3.0, 3.0))[1:-1].all()
