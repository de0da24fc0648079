"""What is drawn around the organs of a label map."""

import numpy as np
import pytest
from scipy import ndimage

from tests.painted_maps import KEPT, SHAPE, SPACING, draw_partial_map, draw_whole_map
from tfds_pancreas.abdomen.organs import ALL_ORGANS, ORGANS
from tfds_pancreas.painted_ct.map_completion import complete_map
from tfds_pancreas.painted_ct.patient_frame import fit_frame
from tfds_pancreas.phantom_ct.patient import draw_patient

ADDED = {"skin", "fat", "bone", "disc", "muscle", "kidney_right", "aorta", "vena_cava",
         "portal_splenic_vein", "mesenteric_artery", "colon", "small_bowel"}  # fmt: skip


def complete_phantom(labels, given=(), seed=0):
  return complete_map(np.random.default_rng(seed), labels, SPACING, given)


@pytest.fixture(scope="module")
def completed_map():
  return complete_phantom(draw_partial_map(1).array, KEPT)


def test_the_spine_is_found_from_the_organs():
  off = []
  for number in range(6):
    place = draw_patient(np.random.default_rng((number, 2))).place
    truth = place + (np.array(SHAPE) - 1) / 2 * SPACING
    off.append(fit_frame(draw_partial_map(number).array, SPACING).origin - truth)
  assert (np.median(np.abs(off), axis=0) < (10, 12, 20)).all()
  assert (np.abs(off).max(0) < (20, 30, 30)).all()


def test_the_organs_of_the_map_stay_as_they_are(completed_map):
  organs = draw_partial_map(1).array
  np.testing.assert_array_equal(completed_map[organs > 0], organs[organs > 0])
  for organ in KEPT:
    np.testing.assert_array_equal(completed_map == ORGANS[organ], organs == ORGANS[organ])


def test_what_the_map_lacks_is_drawn(completed_map):
  there = {name for name, value in ALL_ORGANS.items() if (completed_map == value).any()}
  assert there >= ADDED | set(KEPT)


def test_the_body_is_closed_and_holds_the_organs(completed_map):
  body = completed_map != ORGANS["background"]
  for z in range(body.shape[2]):
    assert ndimage.label(body[:, :, z])[1] == 1
    np.testing.assert_array_equal(ndimage.binary_fill_holes(body[:, :, z]), body[:, :, z])
  inner = ndimage.binary_erosion(body, ndimage.generate_binary_structure(3, 1), border_value=1)
  assert inner[draw_partial_map(1).array > 0].all()


def test_the_spine_lies_behind_the_pancreas_and_lungs_above_it(completed_map):
  def middle(organ):
    return np.argwhere(completed_map == ORGANS[organ]).mean(0) * SPACING

  assert middle("pancreas")[1] - middle("disc")[1] > 40
  assert middle("kidney_right")[0] - middle("kidney_left")[0] > 80
  assert np.argwhere(completed_map == ORGANS["lung"])[:, 2].min() * 8 > middle("pancreas")[2]


def test_a_left_kidney_that_the_view_does_not_reach_is_not_mirrored():
  """The map names it, and has no voxel of it here: one on the right is drawn."""
  organs = draw_partial_map(1).array
  above = np.where(organs == ORGANS["kidney_left"], 0, organs).astype(np.uint8)
  completed = complete_phantom(above, KEPT)
  assert not (completed == ORGANS["kidney_left"]).any()
  assert (completed == ORGANS["kidney_right"]).any()


@pytest.mark.parametrize("kinds", [("bone",), ("muscle",), ("lung", "aorta"), ("colon",)])
def test_nothing_is_added_of_a_kind_that_the_map_has(kinds):
  values = [ORGANS[kind] for kind in kinds]
  labels = np.where(
    np.isin(draw_whole_map(1).array, values), draw_whole_map(1).array, draw_partial_map(1).array
  )
  result = complete_phantom(labels, (*KEPT, *kinds))
  for value in values:
    np.testing.assert_array_equal(result == value, labels == value)


def test_a_kind_that_the_map_names_is_not_drawn_where_the_view_has_none():
  result = complete_phantom(draw_partial_map(1).array, (*KEPT, "bone", "lung"))
  assert not np.isin(result, [ORGANS[organ] for organ in ("bone", "disc", "lung")]).any()


def test_a_whole_map_is_left_alone():
  labels = draw_whole_map(2).array
  np.testing.assert_array_equal(complete_phantom(labels, ORGANS), labels)


def test_a_pancreas_alone_is_enough():
  labels = np.where(
    draw_partial_map(1).array == ORGANS["pancreas"], draw_partial_map(1).array, 0
  ).astype(np.uint8)
  result = complete_phantom(labels, ("pancreas",))
  np.testing.assert_array_equal(result == ORGANS["pancreas"], labels > 0)
  assert (result == ORGANS["bone"]).any()


def test_patients_differ_around_the_same_organs(completed_map):
  assert (complete_phantom(draw_partial_map(1).array, KEPT) == completed_map).all()
  assert (complete_phantom(draw_partial_map(1).array, KEPT, seed=1) != completed_map).mean() > 0.01
