"""Tables of superpixels of training cases and their labels, from which the forest learns."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.runtime.arrays import load_arrays, refuse_arrays, save_arrays
from attn_unet_jax.stages.features import COUNT as NUM_FEATURES
from attn_unet_jax.stages.forest import WAY_OUT, RandomForest, grow_forest

# In steps of 0.05, as the release of Roth et al. 2018 tries thresholds.
_THRESHOLDS = np.arange(1, 20) / 20  # 0.05 to 0.95


@dataclasses.dataclass(frozen=True)
class SuperpixelTable:
  """A table of the superpixels of several cases, a row each.

  Attributes:
    features: [S, 31] float32.
    labelled: number of labelled voxels, [S].
    positive: number of foreground voxels, [S].
    case: index of the case, [S].
    ids: ids of the cases, [C].
    total: number of foreground voxels of each case, including those outside its box, [C].
  """

  features: np.ndarray
  labelled: np.ndarray
  positive: np.ndarray
  case: np.ndarray
  ids: np.ndarray
  total: np.ndarray

  def save(self, path: Path) -> None:
    """Writes the table to an `.npz` file, atomically."""
    save_arrays(path, **dataclasses.asdict(self))

  @property
  def foreground(self) -> np.ndarray:
    """The superpixels with more than half of their labelled voxels in the foreground, bool [S]."""
    return 2 * self.positive > self.labelled


def load_table(path: Path) -> SuperpixelTable:
  """Reads a table that `SuperpixelTable.save` wrote.

  Raises:
    UserError: the file is missing or damaged, or its arrays are no table.
  """
  names = [field.name for field in dataclasses.fields(SuperpixelTable)]
  table = SuperpixelTable(**load_arrays(path, names, WAY_OUT))
  if fault := _find_fault(table):
    raise refuse_arrays(path, fault, WAY_OUT)
  return table


def _find_fault(table: SuperpixelTable) -> str:
  """Returns why arrays are no table; '' if they are one."""
  rows, cases = len(np.atleast_1d(table.labelled)), len(np.atleast_1d(table.ids))
  shapes = {
    "features": (rows, NUM_FEATURES),
    **dict.fromkeys(("labelled", "positive", "case"), (rows,)),
    **dict.fromkeys(("ids", "total"), (cases,)),
  }
  for name, shape in shapes.items():
    array = getattr(table, name)
    kinds = {"features": "fiu", "ids": "U"}.get(name, "iu")
    if array.shape != shape or array.dtype.kind not in kinds:
      return f"{name} is {array.dtype} {array.shape}, not {shape}"
  is_outside = (table.case < 0) | (table.case >= cases)
  return "case has numbers of no case" if is_outside.any() else ""


def rows_of(
  case_id: str, features: np.ndarray, segments: np.ndarray, label: np.ndarray, total: int
) -> SuperpixelTable:
  """Makes the table of one case.

  Args:
    case_id: the case.
    features: the features of its superpixels.
    segments: number of the superpixel of each voxel of the box, [x, y, z].
    label: class of each voxel of the box, `UNLABELLED` where unknown.
    total: foreground voxels of the whole case.
  """
  count, flat = len(features), segments.ravel()
  labelled = np.bincount(flat, (label != UNLABELLED).ravel(), count).astype(np.int64)
  positive = np.bincount(flat, (label == 1).ravel(), count).astype(np.int64)
  zeros = np.zeros(count, np.int32)
  return SuperpixelTable(
    features, labelled, positive, zeros, np.array([case_id]), np.array([total])
  )


def join_tables(tables: Sequence[SuperpixelTable]) -> SuperpixelTable:
  """Joins the rows of several tables."""
  # The index of a case counts within its own table.
  offsets = np.cumsum([0, *(len(table.ids) for table in tables)])
  moved = [
    dataclasses.replace(table, case=table.case + offset)
    # The last offset is the number of all cases, and belongs to no table.
    for table, offset in zip(tables, offsets, strict=False)
  ]
  names = [field.name for field in dataclasses.fields(SuperpixelTable)]
  return SuperpixelTable(
    *(np.concatenate([getattr(table, name) for table in moved]) for name in names)
  )


def learn_forest(tables: Sequence[SuperpixelTable], seed: int) -> RandomForest:
  """Grows a forest of all tables, with the threshold that scores best on held-out cases.

  A forest of the other tables predicts each table. The threshold, of 0.05, 0.10 .. 0.95, has the
  highest mean DSC over the cases of these predictions; of equal ones the middle one is taken.

  Args:
    tables: one for each inner fold, two or more.
    seed: seed of the forests.

  Raises:
    UserError: all superpixels of a forest are of one class.
  """
  # Out-of-fold predictions, since a forest is too sure of the superpixels that it was grown on.
  scores = np.zeros(len(_THRESHOLDS))
  for index, held_out in enumerate(tables):
    others = join_tables([table for other, table in enumerate(tables) if other != index])
    probability = _grow_and_score(others, seed).probability(held_out.features)
    scores += [dice_sum(held_out, probability > threshold) for threshold in _THRESHOLDS]
  # Sums of floats in different order: equal scores may differ by rounding.
  best = _THRESHOLDS[scores > scores.max() - 1e-9]
  threshold = float(best[len(best) // 2])
  return dataclasses.replace(_grow_and_score(join_tables(tables), seed), threshold=threshold)


def dice_sum(table: SuperpixelTable, chosen: np.ndarray) -> float:
  """Sums over cases the DSC of the chosen superpixels, bool [S], on the working grid."""
  cases = len(table.ids)
  hit = np.bincount(table.case, table.positive * chosen, cases)
  volume = np.bincount(table.case, table.labelled * chosen, cases)
  # `total` includes foreground outside the box, which no choice of superpixels can find.
  both = volume + table.total
  return float(np.where(both > 0, 2 * hit / np.maximum(both, 1), 1.0).sum())


def _grow_and_score(table: SuperpixelTable, seed: int) -> RandomForest:
  # The class of a superpixel without labelled voxels is unknown.
  known = table.labelled > 0
  return grow_forest(table.features[known], table.foreground[known], seed)
