import dataclasses
import sys

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.stages import forest


@pytest.fixture(scope="module")
def learnt():
  rng = np.random.default_rng(0)
  features = rng.normal(0, 1, (3000, 5)).astype(np.float32)
  positive = features[:, 0] * features[:, 1] + rng.normal(0, 0.3, 3000) > 1.2
  return features, positive, forest.grow_forest(features, positive, seed=3)


def test_the_arrays_answer_as_scikit_learn_does(learnt):
  features, positive, grown = learnt
  reference = RandomForestClassifier(
    n_estimators=50, max_depth=15, class_weight="balanced", random_state=3
  ).fit(features, positive)
  unseen = np.random.default_rng(1).normal(0, 1, (2000, 5)).astype(np.float32)
  for rows in (features, unseen):
    expected = reference.predict_proba(rows)[:, 1]
    np.testing.assert_allclose(grown.probability(rows), expected, atol=1e-12)
  assert max(tree.get_depth() for tree in reference.estimators_) == 15


def test_it_learns(learnt):
  _, _, grown = learnt
  unseen = np.random.default_rng(1).normal(0, 1, (2000, 5)).astype(np.float32)
  truth = unseen[:, 0] * unseen[:, 1] > 1.2
  assert ((grown.probability(unseen) > 0.5) == truth).mean() > 0.9


def test_kept_and_read_back(learnt, tmp_path):
  features, _, grown = learnt
  grown = dataclasses.replace(grown, threshold=0.35)
  grown.save(tmp_path / "forest.npz")
  again = forest.load_forest(tmp_path / "forest.npz")
  assert again.threshold == 0.35
  np.testing.assert_array_equal(again.probability(features), grown.probability(features))
  assert [path.name for path in tmp_path.iterdir()] == ["forest.npz"]


def test_a_missing_or_damaged_file_is_named(learnt, tmp_path):
  path = tmp_path / "forest.npz"
  with pytest.raises(UserError, match=r"forest\.npz: not readable"):
    forest.load_forest(path)
  learnt[2].save(path)
  whole = path.read_bytes()
  for damaged in (whole[:900], whole[:900] + bytes(100) + whole[1000:]):
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"forest\.npz: not readable"):
      forest.load_forest(path)


def test_a_file_of_other_arrays_is_named(tmp_path):
  path = tmp_path / "forest.npz"
  forest.save_arrays(path, threshold=np.zeros(()), leaves=np.zeros(3))
  told = r"forest\.npz: not readable \(it holds threshold, leaves, not feature, cut, left, right, "
  with pytest.raises(UserError, match=told):
    forest.load_forest(path)


def test_a_file_that_may_not_be_read_is_not_to_be_removed(learnt, tmp_path, unreadable):
  path = tmp_path / "forest.npz"
  learnt[2].save(path)
  unreadable(path)
  with pytest.raises(PermissionError):
    forest.load_forest(path)


def test_nothing_pickled_is_read(tmp_path):
  path = tmp_path / "forest.npz"
  np.savez(path, threshold=np.array([object()], dtype=object))
  with pytest.raises(UserError, match="not readable"):
    forest.load_forest(path)


@pytest.mark.parametrize("value", [True, False])
def test_one_class_alone_is_refused(value):
  with pytest.raises(UserError, match="nothing to learn"):
    forest.grow_forest(np.zeros((4, 2), np.float32), np.full(4, value), 0)


def test_it_answers_without_scikit_learn(learnt, monkeypatch):
  features, positive, grown = learnt
  monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
  assert grown.probability(features[:5]).shape == (5,)
  with pytest.raises(UserError, match=r"pip install '.\[hnn\]'"):
    forest.grow_forest(features, positive, 0)


@pytest.mark.parametrize(
  ("changes", "told"),
  [
    ({"cut": np.zeros((2, 3))}, r"not equal shapes \[trees, nodes\]: .*cut \(2, 3\)"),
    (dict.fromkeys(("feature", "left", "right"), np.zeros(4, np.int16)), "not equal shapes"),
    ({"left": np.full((2, 4), 4, np.int32)}, r"left has values beyond 0 \.\. 3"),
    ({"right": np.full((2, 4), -1, np.int32)}, r"right has values beyond 0 \.\. 3"),
    ({"feature": np.full((2, 4), 31, np.int16)}, r"feature has values beyond 0 \.\. 30"),
    ({"feature": np.zeros((2, 4))}, "feature is float64, not int16"),
    ({"threshold": np.full(3, 0.5)}, "value or threshold is no fraction"),
    ({"threshold": np.array(np.nan)}, "value or threshold is no fraction"),
    ({"value": np.full((2, 4), 1.5)}, "value or threshold is no fraction"),
    ({"cut": np.full((2, 4), np.inf)}, "a cut is not finite"),
    (dict.fromkeys(("feature", "cut", "left", "right", "value"), np.zeros((0, 4))), "not equal"),
  ],
)
def test_arrays_that_are_no_forest_are_named(tmp_path, changes, told):
  path = tmp_path / "forest.npz"
  good = {
    "feature": np.zeros((2, 4), np.int16),
    "cut": np.zeros((2, 4)),
    "left": np.zeros((2, 4), np.int32),
    "right": np.full((2, 4), 3, np.int32),
    "value": np.full((2, 4), 0.5),
    "threshold": np.array(0.5),
  }
  forest.save_arrays(path, **good)
  assert forest.load_forest(path).value.shape == (2, 4)
  forest.save_arrays(path, **{**good, **changes})
  with pytest.raises(UserError, match=rf"forest\.npz: not readable \({told}"):
    forest.load_forest(path)


def test_arrays_that_no_memory_holds_are_not_unpacked(tmp_path, monkeypatch):
  path = tmp_path / "forest.npz"
  forest.save_arrays(path, feature=np.zeros(2**20))
  assert path.stat().st_size < 2**14  # packed, it would fit
  monkeypatch.setattr("attn_unet_jax.runtime.memory.host_bytes", lambda: 2**20)
  with pytest.raises(UserError, match=r"forest\.npz: its arrays take 0.00781 GiB"):
    forest.load_forest(path)
