"""Whole cases on the working grid for the stages, and a fold of another split."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from attn_unet_jax.cases.boxes import Boxes
from attn_unet_jax.cases.fold import DataFold
from attn_unet_jax.cases.folds import PARTS, CaseSplit
from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.cases.working_cases import WorkingCases
from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.runtime.console import show_progress
from attn_unet_jax.volumes.box import Box, bounding_box
from attn_unet_jax.volumes.volume import Volume


def whole_cases(data: DataOptions, fold: DataFold, ids: Sequence[str]) -> Iterator[WorkingCase]:
  """Yields cases with all of their voxels and labels, one after the other."""
  return show_progress(WorkingCases(ids, fold.dataset, fold.mapping, data), len(ids), "cases")


def make_volume(case: WorkingCase, data: DataOptions) -> Volume:
  """Makes a volume of a case's image."""
  # The scan's place in the world is not known here; boxes are relative to the middle of the scan.
  spacing = data.spacing_mm
  return Volume(case.image, np.diag([spacing, spacing, spacing, 1.0]))


def label_box(case: WorkingCase, data: DataOptions) -> Box | None:
  """Returns the box around the foreground; None if there is none."""
  foreground = (case.label > 0) & (case.label != UNLABELLED)
  return bounding_box(foreground, make_volume(case, data).grid)


def replace_split(data: DataOptions, fold: DataFold, split: CaseSplit, boxes: Boxes) -> DataFold:
  """Replaces the split and the boxes of a fold, for a run of its own."""
  parts = {part: list(getattr(split, part)) for part in PARTS}
  # The run writes this list into its folder, so that it can be evaluated like any other.
  listing = {"name": f"a stage's, of {fold.listing['name']}", "folds": [parts]}
  return dataclasses.replace(fold, data=data, split=split, listing=listing, boxes=boxes)
