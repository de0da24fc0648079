import numpy as np
import pytest

from tfds_pancreas.label_checks import find_nonzero


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_places_of_a_label_are_those_of_numpy(order):
  rng = np.random.default_rng(0)
  label = np.zeros((9, 8, 7), np.uint8, order=order)
  label[2:5, 3:8, 6:] = rng.integers(0, 3, (3, 5, 1))
  label[4, 7, 6] = 2
  for ours, theirs in zip(find_nonzero(label), np.nonzero(label), strict=True):
    np.testing.assert_array_equal(ours, theirs)
