"""Rims of bones and fat in muscles: where they lie, how strong they are, what they leave alone."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from attn_unet_jax.painting.densities import Densities
from attn_unet_jax.painting.materials import NUM_MATERIALS
from attn_unet_jax.painting.options import Painting
from attn_unet_jax.painting.texture import draw_fields
from attn_unet_jax.painting.wall import find_rim, paint_wall
from tfds_pancreas.abdomen.organs import ORGANS

MEAN = np.zeros(NUM_MATERIALS, np.float32)
MEAN[ORGANS["bone"]], MEAN[ORGANS["muscle"]], MEAN[ORGANS["fat"]] = 150, 60, -100
FINE = np.zeros_like(MEAN)
FINE[ORGANS["bone"]] = 60
INDEX = np.full((24, 24, 16), ORGANS["liver"], np.int32)
INDEX[2:12, 3:13, :9] = ORGANS["bone"]
INDEX[14:, 4:] = ORGANS["muscle"]
BONE, MUSCLE = (np.isin(INDEX, ORGANS[name]) for name in ("bone", "muscle"))
# By an implementation that is not ours; bone goes on below the patch.
INSIDE = ndimage.binary_erosion(np.pad(BONE, 1, "edge"))[1:-1, 1:-1, 1:-1]
KEYS = jax.random.split(jax.random.key(3), 40)


@cache
def paint(painting):
  """Returns what the patch was, and what it is with each key, [K, X, Y, Z]."""
  middle, fine, _ = draw_fields(jax.random.key(1), INDEX.shape, [4.0, 2.0])
  texture = (middle + fine) * 0.5**0.5
  hu = jnp.asarray(MEAN)[INDEX] + jnp.asarray(FINE)[INDEX] * texture
  densities = Densities(jnp.asarray(MEAN), jnp.zeros_like(MEAN), jnp.asarray(FINE))

  def paint_one(key):
    return paint_wall(key, hu, jnp.asarray(INDEX), densities, (texture, fine), painting)

  return np.asarray(hu), np.asarray(jax.jit(lambda keys: jax.lax.map(paint_one, keys))(KEYS))


def test_without_options_nothing_changes():
  before, after = paint(Painting())
  assert (after == before).all()


def test_a_rim_is_a_voxel_of_the_bone_beside_something_else():
  np.testing.assert_array_equal(find_rim(jnp.asarray(BONE)), BONE & ~INSIDE)


def test_rims_lie_above_the_marrow_by_what_is_drawn_and_all_else_is_left():
  before, after = paint(Painting(bone_rim_hu=(100.0, 300.0)))
  assert (after[:, ~BONE] == before[~BONE]).all()
  above = after[:, BONE & ~INSIDE].mean(1) - after[:, INSIDE].mean(1)
  assert above.min() > 80
  assert above.max() < 320
  assert above.mean() == pytest.approx(200, abs=30)


def test_marrow_is_as_rough_as_the_table_or_as_smooth_as_an_organ():
  before, after = paint(Painting(bone_rim_hu=(100.0, 300.0)))
  rough = after[:, INSIDE].std(1) / before[INSIDE].std()
  assert rough.min() < 0.25
  assert rough.max() > 0.9
  assert rough.max() < 1.001


def test_fat_lowers_muscles_alone_by_its_share():
  before, after = paint(Painting(muscle_fat=(0.2, 0.2)))
  assert (after[:, ~MUSCLE] == before[~MUSCLE]).all()
  share = (60 - after[:, MUSCLE].mean(1)) / 160
  np.testing.assert_allclose(share, 0.2, atol=0.06)
  assert after[0, MUSCLE].std() > 20  # septa, and no veil
