import numpy as np
import pytest
from scipy import ndimage

from tfds_pancreas.abdomen.organs import ORGANS
from tfds_pancreas.phantom_ct.anatomy import draw_label_map

SHAPE, SPACING = (53, 44, 43), (6.0, 6.0, 6.0)


def organ_points(labels, affine, organ):
  """Places in mm of an organ's voxels, [M, 3]."""
  return np.argwhere(labels == ORGANS[organ]) @ affine[:3, :3].T + affine[:3, 3]


@pytest.fixture(scope="module")
def people():
  return [
    draw_label_map((number, 2), SHAPE, SPACING) for number in range(40)
  ]  # the demo set's seeds


def test_the_same_seed_draws_the_same_bits(people):
  again, affine = draw_label_map((3, 2), SHAPE, SPACING)
  np.testing.assert_array_equal(again, people[3][0])
  np.testing.assert_array_equal(affine, people[3][1])
  assert (again != people[4][0]).any()


def test_every_organ_is_there(people):
  for labels, _ in people:
    there = set(np.unique(labels))
    # The field of view of some ends below the lungs.
    assert there | {ORGANS["lung"]} == set(ORGANS.values())


def test_the_affine_has_its_origin_in_the_middle(people):
  labels, affine = people[0]
  middle = (np.array(labels.shape) - 1) / 2
  np.testing.assert_allclose(affine[:3, :3] @ middle + affine[:3, 3], 0, atol=1e-9)
  np.testing.assert_allclose(np.diag(affine)[:3], SPACING)


def test_the_pancreas_is_of_human_volume_and_in_one_piece(people):
  volumes = []
  for labels, _ in people:
    pancreas = labels == ORGANS["pancreas"]
    volumes.append(pancreas.sum() * np.prod(SPACING) / 1000)
    assert ndimage.label(pancreas)[1] == 1
  assert min(volumes) >= 40
  assert max(volumes) <= 150
  assert np.std(volumes) > 10


def test_the_pancreas_is_not_found_by_place(people):
  centroids = [organ_points(*person, "pancreas").mean(0) for person in people]
  assert (np.std(centroids, axis=0) >= 10).all()


def test_left_is_left(people):
  for person in people:
    x = {
      o: organ_points(*person, o)[:, 0].mean() for o in ("liver", "vena_cava", "aorta", "spleen")
    }
    assert x["liver"] > x["vena_cava"] > x["aorta"] > x["spleen"]


def test_front_and_top_are_where_they_should_be(people):
  for person in people:
    pancreas = organ_points(*person, "pancreas").mean(0)
    assert organ_points(*person, "aorta").mean(0)[1] < pancreas[1]
    assert (organ_points(*person, "lung")[:, 2] > pancreas[2]).all()
    assert organ_points(*person, "liver").mean(0)[2] > pancreas[2]


@pytest.mark.parametrize(("organ", "low", "high"), [("liver", 450, 2600), ("spleen", 35, 700)])
def test_organs_are_of_human_volume(people, organ, low, high):
  volumes = [(labels == ORGANS[organ]).sum() * np.prod(SPACING) / 1000 for labels, _ in people]
  assert low < min(volumes)
  assert max(volumes) < high
