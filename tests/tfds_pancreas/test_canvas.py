import numpy as np
import pytest

from tfds_pancreas.abdomen.canvas import LabelCanvas
from tfds_pancreas.abdomen.organs import ORGANS

SPACING = (5.0, 5.0, 5.0)


@pytest.fixture
def canvas():
  axes = [np.arange(12) * 5.0 - 27.5] * 3
  points = np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)
  labels = np.full((12, 12, 12), ORGANS["fat"], np.uint8)
  labels[:4] = ORGANS["liver"]
  return LabelCanvas(np.random.default_rng(0), points, SPACING, labels)


def test_an_organ_of_the_map_is_never_drawn_again(canvas):
  before = canvas.labels.copy()
  canvas.fill_organ("liver", np.full(canvas.shape, -1.0))
  np.testing.assert_array_equal(canvas.labels, before)


def test_a_missing_organ_is_drawn_around_those_of_the_map(canvas):
  canvas.fill_organ("spleen", canvas.distance_to_ellipsoid((0, 0, 0), (20, 20, 20)))
  assert (canvas.labels[:4] == ORGANS["liver"]).all()
  inside = np.linalg.norm(canvas.points, axis=0) < 20
  np.testing.assert_array_equal(canvas.labels[4:] == ORGANS["spleen"], inside[4:])


def test_the_map_that_is_given_is_not_written_to():
  given = np.full((4, 4, 4), ORGANS["fat"], np.uint8)
  canvas = LabelCanvas(np.random.default_rng(0), np.zeros((3, 4, 4, 4), np.float32), SPACING, given)
  canvas.fill_organ("bone", np.full((4, 4, 4), -1.0))
  assert (canvas.labels == ORGANS["bone"]).all()
  assert (given == ORGANS["fat"]).all()
