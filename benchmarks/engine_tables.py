"""The figures of masks by several engines, and their table; see `benchmarks.engine_scores`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attn_unet_jax.evaluation.overlap import score_case
from benchmarks.page import table


def mean_dsc(masks: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> dict[str, Any]:
  """Returns the DSC of class 1 of each case, and their mean.

  Args:
    masks: class indices or booleans [X, Y, Z].
    labels: class indices [X, Y, Z]; each has class 1.
  """
  scores = [
    score_case(mask, label, {"organ": 1}, 1.0)["organ"]["dsc"]
    for mask, label in zip(masks, labels, strict=True)
  ]
  return {"dsc": round(float(np.mean(scores)), 5), "dsc_of_cases": [round(s, 4) for s in scores]}


def write_table(sets: Mapping[str, Mapping[str, Any]]) -> str:
  """Writes a row for each engine of each set."""
  rows = []
  for name, engines in sets.items():
    for engine, one in engines.items():
      if "error" in one:
        rows.append([name, engine, f"none: {one['error']}", "", ""])
        continue
      cases, alike = len(one["dsc_of_cases"]), f"{one['dice_with_first']:.5f}"
      rows.append([f"{cases} {name}", engine, f"{one['dsc']:.4f}", alike, str(one["voxels"])])
  return table(["test cases", "engine", "mean DSC", "Dice with JAX's", "voxels that differ"], rows)
