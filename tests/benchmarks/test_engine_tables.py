"""Figures of masks by several engines, by hand."""

import numpy as np

from benchmarks.engine_tables import mean_dsc, write_table
from benchmarks.mask_agreement import compare_masks

LABEL = np.array([[[1, 1, 1, 0]], [[2, 0, 0, 0]]])
GOOD = LABEL == 1
SMALL = GOOD & (np.arange(4) < 1)  # one voxel of three: 2 * 1 / (1 + 3)


def test_the_dsc_is_that_of_class_one():
  found = mean_dsc([GOOD, SMALL], [LABEL, LABEL])
  assert found == {"dsc": 0.75, "dsc_of_cases": [1.0, 0.5]}


def test_masks_are_alike_by_the_voxels_of_both():
  assert compare_masks([GOOD, SMALL], [GOOD, GOOD]) == {"voxels": 2, "dice_with_first": 0.8}
  assert compare_masks([GOOD & False], [GOOD & False]) == {"voxels": 0, "dice_with_first": 1.0}


def test_a_row_for_each_engine():
  one = mean_dsc([GOOD, SMALL], [LABEL, LABEL]) | compare_masks([GOOD, SMALL], [GOOD, GOOD])
  text = write_table({"slabs": {"JAX": one, "OpenVINO": {"error": "not here"}}})
  assert "| 2 slabs | JAX | 0.7500 | 0.80000 | 2 |" in text
  assert "| slabs | OpenVINO | none: not here |  |  |" in text
