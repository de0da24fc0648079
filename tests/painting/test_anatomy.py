"""What is drawn into a patch that no label map names: how much of it, where, and its label."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.painting.anatomy import vary_anatomy
from attn_unet_jax.painting.materials import (
  DUCT,
  LESION,
  LOOP_CONTENT,
  LOOP_WALL,
  VESSEL,
  VISCERAL_FAT,
)
from attn_unet_jax.painting.options import Painting
from tfds_pancreas.abdomen.organs import ORGANS

SPACING = 3.0
CLASS = 2  # of the pancreas
LOOPS = (LOOP_WALL, LOOP_CONTENT)
FULL = Painting(clutter=(0.6, 0.6), lesions=1.0)
KEYS = jax.random.split(jax.random.key(0), 48)


def draw_map():
  """A liver, visceral fat with a bar of pancreas in it, and fat beneath the skin."""
  materials = np.full((32, 32, 16), VISCERAL_FAT, np.uint8)
  materials[:, :4] = ORGANS["fat"]
  materials[26:] = ORGANS["liver"]
  materials[8:24, 14:19, 5:11] = ORGANS["pancreas"]
  label = np.where(materials == ORGANS["pancreas"], CLASS, 0).astype(np.uint8)
  label[26:] = 1
  label[:, -2:] = UNLABELLED
  return materials, label


MATERIALS, LABEL = draw_map()
PANCREAS = np.isin(MATERIALS, ORGANS["pancreas"])
RIM = PANCREAS & (np.abs(np.arange(32) - 16)[:, None] == 2)


@cache
def vary(painting, blank=False, soft=False):
  """Returns the materials and labels of all keys, [K, X, Y, Z]."""
  materials = np.where(PANCREAS & blank, VISCERAL_FAT, MATERIALS)
  shares = np.where(RIM, 0.4, np.where(LABEL == UNLABELLED, LABEL, LABEL / 2)).astype(np.float32)
  label = shares if soft else LABEL

  def vary_one(key):
    return vary_anatomy(key, jnp.asarray(materials), jnp.asarray(label), painting, SPACING)

  return jax.tree.map(np.asarray, jax.jit(lambda keys: jax.lax.map(vary_one, keys))(KEYS))


ALL_FAT = np.where(np.isin(MATERIALS, VISCERAL_FAT), ORGANS["fat"], MATERIALS)


def test_without_options_the_map_is_painted_as_it_is():
  materials, label = vary(Painting())
  assert (materials == ALL_FAT).all()
  assert (label == LABEL).all()
  assert materials.dtype == np.uint8


def test_without_clutter_a_lesion_alone_is_drawn():
  materials, _ = vary(Painting(lesions=1.0))
  drawn = np.isin(materials, (LESION, DUCT))
  assert (materials[~drawn] == np.broadcast_to(ALL_FAT, drawn.shape)[~drawn]).all()


def test_the_key_decides_every_bit_and_types_are_kept():
  materials, label = vary(FULL)
  arrays = jnp.asarray(MATERIALS), jnp.asarray(LABEL)
  again = jax.jit(lambda key: vary_anatomy(key, *arrays, FULL, SPACING))(KEYS[3])
  np.testing.assert_array_equal(again[0], materials[3])
  np.testing.assert_array_equal(again[1], label[3])
  assert materials.dtype == label.dtype == np.uint8
  assert len({patch.tobytes() for patch in materials}) == len(KEYS)


def test_clutter_lies_in_visceral_fat_alone_and_changes_no_label():
  materials, label = vary(Painting(clutter=(0.6, 0.6)))
  assert (label == LABEL).all()
  changed = materials != MATERIALS
  assert (np.broadcast_to(MATERIALS, changed.shape)[changed] == VISCERAL_FAT).all()
  assert set(np.unique(materials[changed])) == {*LOOPS, VESSEL}


def test_more_clutter_fills_more_of_the_fat():
  fat = MATERIALS == VISCERAL_FAT
  shares = []
  for share in (0.1, 0.5, 0.9):
    materials, _ = vary(Painting(clutter=(share, share)))
    loops = np.isin(materials[:, fat], LOOPS).mean()
    # Of the clutter 0.4 to 1 are loops; about the pancreas they crowd.
    assert loops > 0.6 * share
    shares.append((materials[:, fat] != VISCERAL_FAT).mean())
  assert shares == sorted(shares)
  assert shares[0] < 0.4 < shares[-1]


def test_loops_crowd_about_the_pancreas():
  materials, _ = vary(Painting(clutter=(0.3, 0.3)))
  loops = np.isin(materials, LOOPS)
  beside = loops[:, 8:24, 19:21, 5:11].mean()
  far = loops[:, 8:24, 27:30, 5:11].mean()
  assert beside > 1.3 * far


def test_a_lesion_grows_out_of_the_pancreas_and_is_labelled_as_it():
  materials, label = vary(Painting(lesions=1.0))
  is_lesion = materials == LESION
  assert (is_lesion & PANCREAS).any((1, 2, 3)).all()
  # Into fat between the viscera, not into the liver or what lies beneath the skin.
  outside = is_lesion & ~PANCREAS
  assert outside.any()
  assert (np.broadcast_to(MATERIALS, outside.shape)[outside] == VISCERAL_FAT).all()
  known = LABEL != UNLABELLED
  assert (label[outside & known] == CLASS).all()
  assert (label[:, ~known] == UNLABELLED).all()
  assert (label[:, PANCREAS] == CLASS).all()
  assert (label[~outside] == np.broadcast_to(LABEL, label.shape)[~outside]).all()


def test_lesions_differ_in_size_and_place():
  materials, _ = vary(Painting(lesions=1.0))
  ml = (materials == LESION).sum((1, 2, 3)) * SPACING**3 / 1000
  # A ball of 5 mm radius has half a millilitre.
  assert ml.min() < 3
  assert ml.max() > 8 * np.median(ml) / 4
  centres = [np.argwhere(patch == LESION).mean(0) for patch in materials]
  assert np.std(centres, axis=0)[0] > 2


def test_some_lesions_widen_the_duct_within_the_pancreas():
  materials, _ = vary(Painting(lesions=1.0))
  is_duct = materials == DUCT
  assert 0.1 < is_duct.any((1, 2, 3)).mean() < 0.6
  assert not (is_duct & ~PANCREAS).any()


@pytest.mark.parametrize(("lesions", "expected"), [(0.5, 0.5), (0.1, 0.1)])
def test_lesions_are_as_frequent_as_asked_for(lesions, expected):
  materials, _ = vary(Painting(lesions=lesions))
  assert (materials == LESION).any((1, 2, 3)).mean() == pytest.approx(expected, abs=0.2)


def test_without_pancreas_there_is_no_lesion():
  materials, label = vary(FULL, blank=True)
  assert not np.isin(materials, (LESION, DUCT)).any()
  assert (label == LABEL).all()


def test_a_lesion_has_the_share_of_the_pancreas_that_is_full():
  """Whichever voxel it grows from, and those of its voxels that were the rim of the pancreas."""
  materials, label = vary(Painting(lesions=1.0), soft=True)
  is_lesion = (materials == LESION) & (LABEL != UNLABELLED)
  assert label.dtype == np.float32
  assert (is_lesion & RIM).any()
  assert (label[is_lesion] == CLASS / 2).all()
  rest = (materials != LESION) & RIM
  assert (label[rest] == np.float32(0.4)).all()
  assert (label[:, LABEL == UNLABELLED] == UNLABELLED).all()


def test_no_share_is_made_up_where_that_of_the_pancreas_is_unknown():
  label = np.where(PANCREAS, UNLABELLED, 0).astype(np.float32)
  arrays, painting = (jnp.asarray(MATERIALS), jnp.asarray(label)), Painting(lesions=1.0)
  materials, varied = jax.jit(lambda key: vary_anatomy(key, *arrays, painting, SPACING))(KEYS[0])
  np.testing.assert_array_equal(varied, np.where(materials == LESION, UNLABELLED, label))
