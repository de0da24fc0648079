"""Foreground voxels that patches are centred on."""

import dataclasses

import numpy as np
import pytest

from attn_unet_jax.cases.foreground import MOST, foreground_positions
from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.cases.sparse import keep_labelled_slices
from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.patches.padded_case import pad_case
from tests.configs import small_config


def test_few_are_all_listed_in_memory_order():
  label = np.zeros((4, 5, 6), np.uint8)
  label[0, 0, 0] = UNLABELLED
  label[3, 1, 2], label[1, 4, 5], label[1, 4, 4] = 1, 2, 1
  listed = foreground_positions(label)
  np.testing.assert_array_equal(listed, [[1, 4, 4], [1, 4, 5], [3, 1, 2]])
  assert listed.dtype == np.int32


def test_of_many_some_are_taken_from_end_to_end():
  label = np.ones((20, 30, 40), np.uint8)
  listed = foreground_positions(label)
  assert len(listed) == MOST
  np.testing.assert_array_equal(listed[[0, -1]], [[0, 0, 0], [19, 29, 39]])
  steps = np.diff(np.ravel_multi_index(listed.T, label.shape))
  assert set(steps) == {label.size // MOST, label.size // MOST + 1}


def test_by_class_a_small_organ_is_drawn_as_often_as_a_large_one():
  label = np.zeros((20, 30, 40), np.uint8)
  label[:10], label[12, 3, 4], label[13, 3, 4:7], label[15] = 1, 2, 3, UNLABELLED
  listed = foreground_positions(label, by_class=True)
  classes, counts = np.unique(label[tuple(listed.T)], return_counts=True)
  np.testing.assert_array_equal(classes, [1, 2, 3])
  assert set(counts) == {MOST // 3}
  small = listed[label[tuple(listed.T)] == 3]
  assert len(np.unique(small, axis=0)) == 3
  assert foreground_positions(np.zeros_like(label), by_class=True).shape == (0, 3)
  # Where all are few, none is listed twice more often than needed.
  assert len(foreground_positions(label[12:], by_class=True)) == 2 * 3


@pytest.fixture
def case():
  rng = np.random.default_rng(0)
  label = (rng.random((6, 9, 20)) > 0.9).astype(np.uint8)
  return WorkingCase("a", rng.integers(0, 9, label.shape).astype(np.int16), label, 0.0, 1.0)


def test_listed_before_or_when_a_case_is_opened_they_are_the_same(case):
  before = dataclasses.replace(case, positions=foreground_positions(case.label))
  a, b = (pad_case(c, (9, 8, 24)) for c in (case, before))
  np.testing.assert_array_equal(a.positions, b.positions)
  assert a.count == b.count == case.label.sum()
  assert (a.label[tuple(a.positions[: a.count].T)] == 1).all()  # in the padded case


def test_they_follow_a_label_of_which_slices_are_forgotten(case):
  config = small_config(**{"data.labelled_slices": (0, 0, 4)})
  listed = dataclasses.replace(case, positions=foreground_positions(case.label))
  opened = pad_case(keep_labelled_slices(listed, config.data), case.label.shape)
  assert 0 < opened.count < case.label.sum()
  assert (opened.label[tuple(opened.positions[: opened.count].T)] == 1).all()
