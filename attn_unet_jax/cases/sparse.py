"""Sparse annotation out of dense: as if only some slices of a training label had been drawn."""

import dataclasses

import numpy as np

from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.labels import UNLABELLED


def keep_labelled_slices(case: WorkingCase, data: DataOptions) -> WorkingCase:
  """A training case with the labels of every k-th slice only, as `data.labelled_slices` says."""
  every = data.labelled_slices
  if not any(every):
    return case
  return dataclasses.replace(case, label=keep_slices(case.label, every), positions=None)


def keep_slices(label: np.ndarray, every: tuple[int, int, int]) -> np.ndarray:
  """Keeps the labels of every k-th labelled slice per axis (Cicek et al. 2016, section 3).

  A slice counts as labelled where any of its voxels is; of these the one in the middle of each k
  is kept; of fewer than k the one in their own middle, so that no labelled case loses all of its
  labels. A voxel keeps its label if it lies in a kept slice of any axis.

  Args:
    label: classes uint8 [X, Y, Z], `UNLABELLED` where unknown.
    every: k for slices across X, Y and Z; 0: none of that axis.

  Returns:
    a copy with `UNLABELLED` everywhere else.
  """
  kept = np.zeros(label.shape, bool)
  for axis, k in enumerate(every):
    if k:
      others = tuple(a for a in range(3) if a != axis)
      labelled = np.flatnonzero((label != UNLABELLED).any(axis=others))
      first = min(k, len(labelled)) // 2
      np.moveaxis(kept, axis, 0)[labelled[first::k]] = True
  return np.where(kept, label, np.uint8(UNLABELLED))
