"""The steps between probabilities and mask, on masks whose answers are seen by eye."""

import numpy as np
import pytest

from attn_unet_jax.inference.postprocess import (
  UNCHANGED,
  Postprocessing,
  postprocess_mask,
  weigh_classes,
)
from attn_unet_jax.inference.segment import segment_scan
from attn_unet_jax.volumes.volume import Volume
from tests.configs import with_keys


@pytest.fixture
def labels():
  """A shell of 26 voxels around one, a rod of 3, a single voxel; and another class of 2."""
  array = np.zeros((12, 6, 6), np.uint8)
  array[1:4, 1:4, 1:4] = 1
  array[2, 2, 2] = 0
  array[6:9, 1, 1] = 1
  array[10, 4, 4] = 1
  array[6, 4, 3:5] = 2
  return array


def test_nothing_is_done_unless_it_is_asked_for(labels):
  assert postprocess_mask(labels, UNCHANGED, 1.0) is labels
  assert UNCHANGED.describe() == "nothing"


def test_the_largest_component_of_each_class(labels):
  found = postprocess_mask(labels, Postprocessing(largest=True), 1.0)
  assert np.bincount(found.ravel())[1:].tolist() == [26, 2]
  assert not found[6:9, 1, 1].any()


@pytest.mark.parametrize(
  ("smallest_ml", "left"),
  [(0.5, [30, 2]), (0.6, [29, 2]), (1.0, [29, 2]), (1.5, [29]), (1.6, [26]), (13.1, [])],
)
def test_components_of_less_than_some_millilitres_go(labels, smallest_ml, left):
  found = postprocess_mask(labels, Postprocessing(smallest_ml=smallest_ml), 0.5)
  assert np.bincount(found.ravel())[1:].tolist() == left


def test_a_hole_is_filled_but_neither_a_pit_nor_another_class(labels):
  found = postprocess_mask(labels, Postprocessing(fill_holes=True), 1.0)
  assert found[2, 2, 2] == 1
  assert (found != labels).sum() == 1
  labels[2, 2, 2] = 2
  np.testing.assert_array_equal(
    postprocess_mask(labels, Postprocessing(fill_holes=True), 1.0), labels
  )
  labels[2, 2, 2] = labels[2, 2, 3] = 0
  np.testing.assert_array_equal(
    postprocess_mask(labels, Postprocessing(fill_holes=True), 1.0), labels
  )


def test_holes_are_looked_for_after_components_went(labels):
  labels[1, 2, 2] = 0  # the shell is open, and what is in it is not
  found = postprocess_mask(labels, Postprocessing(largest=True, fill_holes=True), 1.0)
  assert np.bincount(found.ravel())[1:].tolist() == [25, 2]


def test_of_two_classes_the_threshold_is_a_probability():
  p = np.linspace(0, 1, 101, dtype=np.float32)
  probabilities = np.stack([1 - p, p], -1)[:, None, None]
  for threshold in (0.3, 0.5, 0.7):
    found = weigh_classes(probabilities, Postprocessing(threshold))[:, 0, 0].argmax(-1) == 1
    away = np.abs(p - threshold) > 1e-3
    np.testing.assert_array_equal(found[away], (p > threshold)[away])
  assert weigh_classes(probabilities, UNCHANGED) is probabilities


def test_of_several_classes_the_likeliest_is_taken_where_it_beats_the_background():
  probabilities = np.array([[0.5, 0.3, 0.2], [0.5, 0.2, 0.3], [0.7, 0.2, 0.1]], np.float32)
  assert weigh_classes(probabilities, Postprocessing(0.3)).argmax(-1).tolist() == [1, 2, 0]


def test_a_threshold_for_some_classes_leaves_the_others_as_likely_as_they_are():
  probabilities = np.array([[0.5, 0.3, 0.2], [0.5, 0.1, 0.4], [0.2, 0.3, 0.5]], np.float32)
  found = weigh_classes(probabilities, Postprocessing(0.3, values=(1,)))
  assert found.argmax(-1).tolist() == [1, 0, 1]
  of_all = weigh_classes(probabilities, Postprocessing(0.3, values=(1, 2)))
  expected = weigh_classes(probabilities, Postprocessing(0.3))
  assert of_all.argmax(-1).tolist() == expected.argmax(-1).tolist()


def test_steps_for_one_class_keep_both_kidneys():
  """A class that no validation case labels stays as the network said."""
  labels = np.zeros((9, 7, 7), np.uint8)
  labels[0, 0, 0], labels[1:6, 1:6, 1:6], labels[2:5, 2:5, 2:5] = 1, 1, 0
  labels[3, 3, 3], labels[7, :2, :2], labels[7, 5:, 5:6] = 2, 2, 2
  steps = Postprocessing(largest=True, smallest_ml=3.0, fill_holes=True, values=(1,))
  found = postprocess_mask(labels, steps, 1.0)
  np.testing.assert_array_equal(found == 2, labels == 2)
  assert not found[0, 0, 0]
  assert np.count_nonzero(found == 1) == 5**3 - 1  # filled but for the voxel of the other class
  for_all = postprocess_mask(labels, Postprocessing(largest=True), 1.0)
  assert np.count_nonzero(for_all == 2) == 4
  assert steps.describe().endswith("holes filled, of class 1 alone")


def test_a_scan_is_segmented_by_the_steps_on_its_own_grid(config):
  """Foreground of 0.6 and of 0.9, 2 ml a voxel: a threshold leaves the second one."""
  scan = Volume(np.arange(24, dtype=np.int16).reshape(6, 2, 2), np.diag([20.0, 10, 10, 1]))
  config = with_keys(config, {"data.spacing_mm": 10.0})

  class System:
    def predict(self, volume):
      p = np.zeros(volume.shape, np.float32)
      p[:4], p[8:] = 0.6, 0.9
      return np.stack([1 - p, p], -1)

  def sizes(**steps):
    mask = segment_scan(scan, System(), config, postprocessing=Postprocessing(**steps)).mask
    return mask.array[:, 0, 0].tolist()

  assert sizes() == [1, 1, 0, 0, 1, 1]
  assert sizes(threshold=0.7) == [0, 0, 0, 0, 1, 1]
  assert sizes(largest=True) == [1, 1, 0, 0, 0, 0]
  assert sizes(smallest_ml=16.0) == [1, 1, 0, 0, 1, 1]
  assert sizes(smallest_ml=16.1) == [0] * 6


@pytest.mark.parametrize("steps", [{"threshold": 0.0}, {"threshold": 1.0}, {"smallest_ml": -1.0}])
def test_steps_that_mean_nothing_are_refused(steps):
  with pytest.raises(ValueError, match="out of range"):
    Postprocessing(**steps)
