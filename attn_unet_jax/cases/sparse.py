"""Simulates sparse annotation: keeps the labels of some slices of a dense label."""

import dataclasses

import numpy as np

from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.cases.prepare import WorkingCase, list_centres
from attn_unet_jax.labels import UNLABELLED


def keep_labelled_slices(case: WorkingCase, data: DataOptions) -> WorkingCase:
  """Drops the labels of a training case outside every k-th slice; see `data.labelled_slices`."""
  every = data.labelled_slices
  if not any(every):
    return case
  label = keep_slices(case.label, every)
  # The positions may lie in slices that lose their labels, so they have to be listed again.
  return dataclasses.replace(case, label=label, positions=list_centres(label, data))


def keep_slices(label: np.ndarray, every: tuple[int, int, int]) -> np.ndarray:
  """Keeps the labels of every k-th labelled slice per axis (Cicek et al. 2016, section 3).

  A slice is labelled if any of its voxels is. Of every k labelled slices the middle one is kept; if
  there are fewer than k, the middle one of these, so that no labelled case loses all its labels. A
  voxel keeps its label if it lies in a kept slice of any axis.

  Args:
    label: classes uint8 [X, Y, Z], `UNLABELLED` where unknown.
    every: k for slices across X, Y and Z; 0: no slice of that axis.

  Returns:
    a copy that is `UNLABELLED` everywhere else.
  """
  kept = np.zeros(label.shape, bool)
  for axis, k in enumerate(every):
    if k:
      others = tuple(a for a in range(3) if a != axis)
      # Only labelled slices are counted: a scan may have been annotated in part before.
      labelled = np.flatnonzero((label != UNLABELLED).any(axis=others))
      # The middle of the first k slices; every k-th one from there is the middle of the next k.
      first = min(k, len(labelled)) // 2
      np.moveaxis(kept, axis, 0)[labelled[first::k]] = True
  return np.where(kept, label, np.uint8(UNLABELLED))
