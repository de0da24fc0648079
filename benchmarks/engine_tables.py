"""The figures of masks by several engines, and their table; see `benchmarks.engine_scores`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.page import table


def mean_dsc(masks: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> dict[str, Any]:
  """Returns the DSC of class 1 of each case, and their mean.

  Args:
    masks: bool [X, Y, Z].
    labels: class indices [X, Y, Z]; each has class 1.
  """
  scores = [_dice(mask, label == 1) for mask, label in zip(masks, labels, strict=True)]
  return {"dsc": round(float(np.mean(scores)), 5), "dsc_of_cases": [round(s, 4) for s in scores]}


def compare_masks(masks: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> dict[str, Any]:
  """Returns in how many voxels masks differ from others, and how alike all of them are."""
  voxels = sum(int((mask != other).sum()) for mask, other in zip(masks, others, strict=True))
  each = sum(int(mask.sum() + other.sum()) for mask, other in zip(masks, others, strict=True))
  return {"voxels": voxels, "dice_with_jax": round(1 - voxels / each, 6) if each else 1.0}


def _dice(one: np.ndarray, other: np.ndarray) -> float:
  return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def write_table(sets: Mapping[str, Mapping[str, Any]]) -> str:
  """Writes a row for each engine of each set."""
  rows = []
  for name, engines in sets.items():
    for engine, one in engines.items():
      if "error" in one:
        rows.append([name, engine, f"none: {one['error']}", "", ""])
        continue
      cases, alike = len(one["dsc_of_cases"]), f"{one['dice_with_jax']:.5f}"
      rows.append([f"{cases} {name}", engine, f"{one['dsc']:.4f}", alike, str(one["voxels"])])
  return table(["test cases", "engine", "mean DSC", "Dice with JAX's", "voxels that differ"], rows)
