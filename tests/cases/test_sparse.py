import numpy as np
import pytest

from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.cases.sparse import keep_labelled_slices, keep_slices
from attn_unet_jax.labels import UNLABELLED
from tests.configs import with_keys

LABEL = np.random.default_rng(0).integers(0, 3, (7, 6, 5)).astype(np.uint8)


def test_one_axis():
  sparse = keep_slices(LABEL, (0, 3, 0))
  kept = [1, 4]  # the middle of slices 0-2 and 3-5
  np.testing.assert_array_equal(sparse[:, kept], LABEL[:, kept])
  assert (np.delete(sparse, kept, axis=1) == UNLABELLED).all()


def test_slices_of_several_axes_are_united():
  sparse = keep_slices(LABEL, (4, 0, 5))
  kept = np.zeros(LABEL.shape, bool)
  kept[[2, 6]] = True
  kept[:, :, 2] = True
  np.testing.assert_array_equal(sparse, np.where(kept, LABEL, UNLABELLED))


def test_only_labelled_slices_count():
  label = LABEL.copy()
  label[::2] = UNLABELLED  # slices 1, 3 and 5 are labelled
  sparse = keep_slices(label, (2, 0, 0))
  np.testing.assert_array_equal(sparse[3], LABEL[3])
  assert (np.delete(sparse, 3, axis=0) == UNLABELLED).all()


@pytest.mark.parametrize("k", [8, 14, 100])
def test_the_middle_slice_is_kept_of_fewer_than_k(k):
  """Of seven; the middle of 14 and more would lie beyond them."""
  expected = np.full_like(LABEL, UNLABELLED)
  expected[3] = LABEL[3]
  np.testing.assert_array_equal(keep_slices(LABEL, (k, 0, 0)), expected)


def test_one_labelled_slice_stays_and_none_stays_none():
  label = np.full_like(LABEL, UNLABELLED)
  np.testing.assert_array_equal(keep_slices(label, (0, 8, 0)), label)
  label[:, 5] = LABEL[:, 5]
  np.testing.assert_array_equal(keep_slices(label, (0, 8, 0)), label)


def test_a_case_is_thinned_as_configured(config):
  case = WorkingCase("a", LABEL.astype(np.int16), LABEL, 0.0, 1.0)
  assert keep_labelled_slices(case, config.data) is case
  config = with_keys(config, {"data.labelled_slices": (0, 0, 2)})
  np.testing.assert_array_equal(
    keep_labelled_slices(case, config.data).label, keep_slices(LABEL, (0, 0, 2))
  )
