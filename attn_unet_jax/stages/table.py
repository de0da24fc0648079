"""Superpixels of training cases with what they are: what the forest learns from."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.stages.forest import RandomForest, grow_forest, load_arrays, save_arrays

_THRESHOLDS = np.arange(1, 20) / 20  # 0.05 to 0.95


@dataclasses.dataclass(frozen=True)
class SuperpixelTable:
  """Superpixels of several cases, a row each.

  Attributes:
    features: [S, 31] float32.
    labelled: voxels of which somebody knows what they are, [S].
    positive: those of them that are foreground, [S].
    case: index of the case, [S].
    ids: the cases, [C].
    total: foreground voxels of each case, those outside its box too, [C].
  """

  features: np.ndarray
  labelled: np.ndarray
  positive: np.ndarray
  case: np.ndarray
  ids: np.ndarray
  total: np.ndarray

  def save(self, path: Path) -> None:
    """Writes an `.npz`, whole or not at all."""
    save_arrays(path, **dataclasses.asdict(self))

  @property
  def foreground(self) -> np.ndarray:
    """Whether more than half of a superpixel's labelled voxels are foreground, bool [S]."""
    return 2 * self.positive > self.labelled


def load_table(path: Path) -> SuperpixelTable:
  """Reads what `save` wrote.

  Raises:
    UserError: the file is missing or damaged.
  """
  return SuperpixelTable(
    **load_arrays(path, [field.name for field in dataclasses.fields(SuperpixelTable)])
  )


def rows_of(
  case_id: str, features: np.ndarray, segments: np.ndarray, label: np.ndarray, total: int
) -> SuperpixelTable:
  """The rows of one case.

  Args:
    case_id: the case.
    features: of its superpixels.
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
  """All rows of several tables."""
  offsets = np.cumsum([0, *(len(table.ids) for table in tables)])
  moved = [
    dataclasses.replace(table, case=table.case + offset)
    for table, offset in zip(tables, offsets, strict=False)
  ]
  names = [field.name for field in dataclasses.fields(SuperpixelTable)]
  return SuperpixelTable(
    *(np.concatenate([getattr(table, name) for table in moved]) for name in names)
  )


def learn_forest(tables: Sequence[SuperpixelTable], seed: int) -> RandomForest:
  """A forest of all tables, with the threshold that scores best on cases which it did not see.

  Each table is answered by a forest of the others; the threshold has the highest mean DSC of the
  cases then, of 0.05, 0.10 .. 0.95, the middle one of equals.

  Args:
    tables: one for each inner fold, two or more.
    seed: of the forests.

  Raises:
    UserError: a forest has nothing to learn from.
  """
  scores = np.zeros(len(_THRESHOLDS))
  for index, held_out in enumerate(tables):
    others = join_tables([table for other, table in enumerate(tables) if other != index])
    probability = _grow_and_score(others, seed).probability(held_out.features)
    scores += [dice_sum(held_out, probability > threshold) for threshold in _THRESHOLDS]
  best = _THRESHOLDS[scores > scores.max() - 1e-9]
  threshold = float(best[len(best) // 2])
  return dataclasses.replace(_grow_and_score(join_tables(tables), seed), threshold=threshold)


def dice_sum(table: SuperpixelTable, chosen: np.ndarray) -> float:
  """Sum over cases of the DSC of the chosen superpixels, bool [S], on the working grid."""
  cases = len(table.ids)
  hit = np.bincount(table.case, table.positive * chosen, cases)
  volume = np.bincount(table.case, table.labelled * chosen, cases)
  both = volume + table.total
  return float(np.where(both > 0, 2 * hit / np.maximum(both, 1), 1.0).sum())


def _grow_and_score(table: SuperpixelTable, seed: int) -> RandomForest:
  known = table.labelled > 0
  return grow_forest(table.features[known], table.foreground[known], seed)
