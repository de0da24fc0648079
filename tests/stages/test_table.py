import dataclasses

import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.stages import table
from attn_unet_jax.stages.forest import grow_forest
from attn_unet_jax.stages.table import SuperpixelTable, dice_sum, join_tables, learn_forest, rows_of


def test_rows_by_hand():
  segments = np.array([0, 0, 0, 0, 1, 1, 1, 2]).reshape(2, 2, 2)
  label = np.array([1, 1, 0, 0, 1, 1, 255, 255]).reshape(2, 2, 2)
  rows = rows_of("a", np.zeros((3, 31), np.float32), segments, label, 9)
  assert rows.labelled.tolist() == [4, 2, 0]
  assert rows.positive.tolist() == [2, 2, 0]
  assert rows.foreground.tolist() == [False, True, False]  # a half is not more than a half
  assert (rows.ids.tolist(), rows.total.tolist()) == (["a"], [9])


def test_joined_cases_keep_their_rows(tmp_path):
  parts = [
    SuperpixelTable(np.full((n, 31), n), *np.full((2, n), n), np.zeros(n, int), [f"c{n}"], [n])
    for n in (2, 3)
  ]
  both = join_tables([join_tables(parts), parts[0]])
  assert both.case.tolist() == [0, 0, 1, 1, 1, 2, 2]
  assert both.ids.tolist() == ["c2", "c3", "c2"]
  both.save(tmp_path / "table.npz")
  again = table.load_table(tmp_path / "table.npz")
  np.testing.assert_array_equal(again.features, both.features)
  assert again.ids.tolist() == both.ids.tolist()


def test_dice_by_hand():
  """Case a: 3 of the 4 voxels chosen are right, of 5 there are; case b: nothing, nothing chosen."""
  rows = SuperpixelTable(
    np.zeros((3, 31)),
    np.array([4, 6, 7]),
    np.array([3, 1, 0]),
    np.array([0, 0, 1]),
    np.array(["a", "b"]),
    np.array([5, 0]),
  )
  assert dice_sum(rows, np.array([True, False, False])) == pytest.approx(2 * 3 / 9 + 1)
  assert dice_sum(rows, np.array([True, False, True])) == pytest.approx(2 * 3 / 9)


def _fold(seed, name):
  """Superpixels whose chance of being foreground is their first feature, of rank 1 of 31."""
  rng = np.random.default_rng(seed)
  features = rng.random((600, 31)).astype(np.float32)
  positive = np.where(features[:, 0] > 0.7, 10, 0)
  case = np.repeat([0, 1], 300)
  total = np.bincount(case, positive)
  return SuperpixelTable(
    features, np.full(600, 10), positive, case, np.array([name, name + "'"]), total
  )


def _noisy_fold(seed, name):
  """As `_fold`, but a third of the superpixels are foreground or not by chance."""
  rows, rng = _fold(seed, name), np.random.default_rng(seed + 100)
  chance = rng.random(600) < 1 / 3
  positive = np.where(chance, rng.integers(0, 11, 600), rows.positive)
  return dataclasses.replace(rows, positive=positive, total=np.bincount(rows.case, positive))


def _best_threshold(held_out, forests):
  """Case by case and voxel by voxel: the threshold of the highest mean DSC."""
  answers = [
    forest.probability(rows.features) for rows, forest in zip(held_out, forests, strict=True)
  ]
  means = {}
  for threshold in (n / 20 for n in range(1, 20)):
    scores = []
    for rows, answer in zip(held_out, answers, strict=True):
      chosen = answer > threshold
      for case in (0, 1):
        of_case = rows.case == case
        hit = sum(p for p, c in zip(rows.positive[of_case], chosen[of_case], strict=True) if c)
        scores.append(2 * hit / (10 * (chosen & of_case).sum() + rows.total[case]))
    means[threshold] = np.mean(scores)
  best = [threshold for threshold, mean in means.items() if np.isclose(mean, max(means.values()))]
  return best[len(best) // 2]


def test_the_threshold_is_chosen_on_cases_that_the_forest_did_not_see():
  folds = [_noisy_fold(0, "a"), _noisy_fold(1, "b")]
  forest, whole = learn_forest(folds, 0), join_tables(folds)
  apart = [grow_forest(other.features, other.foreground, 0) for other in reversed(folds)]
  assert forest.threshold == pytest.approx(_best_threshold(folds, apart))
  of_all = grow_forest(whole.features, whole.foreground, 0)
  assert forest.threshold != pytest.approx(_best_threshold(folds, [of_all] * 2))
  np.testing.assert_array_equal(forest.value, of_all.value)  # what it answers is of all cases


def test_the_threshold_has_the_best_dice_of_the_held_out_cases(monkeypatch):
  """Forests that answer the first feature: foreground begins at 0.7, whichever fold asks."""

  class First:
    def probability(self, features):
      return features[:, 0].astype(np.float64)

  answer = dataclasses.make_dataclass("F", ["threshold"], bases=(First,), frozen=True)
  monkeypatch.setattr(table, "grow_forest", lambda *_: answer(0.5))
  assert learn_forest([_fold(0, "a"), _fold(1, "b")], 0).threshold == pytest.approx(0.7)


@pytest.mark.parametrize(
  ("low", "high", "middle"),
  [
    (0.08, 0.87, 0.5),
    (0.1, 0.85, 0.45),
    (0.0, 0.82, 0.45),
    (0.08, 1.0, 0.55),
    (0, 0.07, 0.05),
    (0.92, 1, 0.95),
  ],
)
def test_the_threshold_is_the_middle_one_of_equals(monkeypatch, low, high, middle):
  """From what background is answered by up to below what foreground is, of 0.05 to 0.95."""

  @dataclasses.dataclass(frozen=True)
  class Certain:
    threshold: float = 0.5

    def probability(self, features):
      return np.where(features[:, 0] > 0.7, high, low)

  monkeypatch.setattr(table, "grow_forest", lambda *_: Certain())
  tables = [_fold(0, "a"), _fold(1, "b"), _fold(2, "c")]
  assert learn_forest(tables, 0).threshold == pytest.approx(middle)


def test_unlabelled_superpixels_are_not_learnt_from():
  """What stands in their rows does not matter: as if they were cut out of the table."""
  rows, known = _fold(0, "a"), np.random.default_rng(1).random(600) < 0.8
  features = np.where(known[:, None], rows.features, 1 - rows.features)
  labelled, positive = np.where(known, 10, 0), np.where(known, rows.positive, 0)
  sparse = dataclasses.replace(rows, features=features, labelled=labelled, positive=positive)
  case = rows.case[known]
  cut = SuperpixelTable(
    features[known], labelled[known], positive[known], case, rows.ids, rows.total
  )
  ours, expected = (
    dataclasses.asdict(learn_forest([part, _fold(1, "b")], 0)) for part in (sparse, cut)
  )
  for name, array in expected.items():
    np.testing.assert_array_equal(ours[name], array)


@pytest.mark.parametrize(
  ("change", "told"),
  [
    ({"features": np.zeros((3, 30))}, r"features is float64 \(3, 30\), not \(3, 31\)"),
    ({"positive": np.zeros(2, int)}, r"positive is int64 \(2,\), not \(3,\)"),
    ({"case": np.array([0, 1, 2])}, "case has numbers of no case"),
    ({"ids": np.zeros(2)}, "ids is float64"),
    ({"total": np.zeros((2, 2), int)}, r"total is int64 \(2, 2\), not \(2,\)"),
  ],
)
def test_arrays_that_are_no_table_are_named(tmp_path, change, told):
  zeros = np.zeros(3, int)
  rows = SuperpixelTable(np.zeros((3, 31)), zeros, zeros, zeros, np.array(["a", "b"]), zeros[:2])
  rows.save(tmp_path / "table.npz")
  assert table.load_table(tmp_path / "table.npz").ids.tolist() == ["a", "b"]
  dataclasses.replace(rows, **change).save(tmp_path / "table.npz")
  with pytest.raises(UserError, match=rf"table\.npz: not readable \({told}"):
    table.load_table(tmp_path / "table.npz")
