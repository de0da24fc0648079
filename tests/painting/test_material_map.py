"""What the voxels of a whole abdomen consist of, and which data can be painted."""

import numpy as np
import pytest

from attn_unet_jax.painting.material_map import check_names, find_materials
from attn_unet_jax.painting.materials import (
  FIRST_CONTENT,
  HOLLOW,
  LAYERS,
  NAMES,
  NUM_MATERIALS,
  VISCERAL_FAT,
)
from attn_unet_jax.runtime.errors import UserError
from tests.painted_maps import SPACING, draw_whole_map
from tfds_pancreas.abdomen.organs import ALL_ORGANS, ORGANS


def test_every_value_is_its_organs_place():
  assert [ALL_ORGANS[name] for name in NAMES] == list(range(FIRST_CONTENT))
  assert NUM_MATERIALS <= 256
  assert set(HOLLOW) == {"stomach", "duodenum", "small_bowel", "colon"}


def test_the_inside_of_hollow_organs_alone_becomes_content():
  organs = np.full((30, 30, 30), ORGANS["fat"], np.uint8)
  organs[4:26, 4:26, 4:26] = ORGANS["stomach"]
  organs[:, :, :2] = ORGANS["liver"]
  materials = find_materials(organs, (2.0, 2.0, 2.0))
  changed = (materials != organs) & (materials != VISCERAL_FAT)
  assert (organs[changed] == ORGANS["stomach"]).all()
  # A wall of 4 mm is two voxels; the corners may be thicker.
  assert changed[6:24, 15, 15].all()
  assert changed[4:26, 15, 15].sum() == 18
  place = list(HOLLOW).index("stomach")
  contents = np.unique(materials[changed]) - FIRST_CONTENT
  assert set(contents // LAYERS) <= {2 * place, 2 * place + 1}
  # The layers rise from the back of the body to its front.
  layer = (materials[15, 6:24, 15].astype(int) - FIRST_CONTENT) % LAYERS
  assert (np.diff(layer) >= 0).all()
  assert layer[0] == 0
  assert layer[-1] == LAYERS - 1


def test_a_map_has_the_same_materials_every_time():
  organs = draw_whole_map(1).array
  first, again = (find_materials(organs, SPACING) for _ in range(2))
  np.testing.assert_array_equal(first, again)
  assert first.dtype == np.uint8
  assert (first < NUM_MATERIALS).all()


def test_labels_of_whole_abdomens_pass_and_others_are_refused():
  for names in (ALL_ORGANS, ORGANS, {"fat": 19, "pancreas": 10}):
    check_names(names, "maps")
  for names, said in (
    (None, "no label called fat"),
    ({"pancreas": 1, "liver": 2}, "no label called fat"),
    ({"fat": 19, "pancreas": 1}, r"\['pancreas'\] with names or values"),
  ):
    with pytest.raises(UserError, match=f"^config.painting.enabled: maps has .*{said}.*ct/maps"):
      check_names(names, "maps")
