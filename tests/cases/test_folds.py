import json
from itertools import combinations

import pytest

from attn_unet_jax.cases.folds import PARTS, by_hash, choose_split
from attn_unet_jax.runtime.errors import UserError

IDS = [f"case_{i:02d}" for i in range(23)]


def test_hash_folds_test_every_case_once_and_never_mix_parts():
  folds = by_hash(IDS)
  assert sorted(case for fold in folds for case in fold["test"]) == IDS
  for fold in folds:
    for a, b in combinations(PARTS, 2):
      assert not set(fold[a]) & set(fold[b])
    assert sorted(case for part in PARTS for case in fold[part]) == IDS
    assert len(fold["test"]) in (4, 5)


def test_hash_folds_are_those_of_every_version():
  """`printf %s a | sha256sum` and so on: the order is j d f c b e h a g i, a group every fifth."""
  folds = by_hash("abcdefghij")
  assert folds[0] == {"training": list("abcfgi"), "validation": ["d", "h"], "test": ["e", "j"]}
  assert folds[4] == {"training": list("acdfgh"), "validation": ["e", "j"], "test": ["b", "i"]}


def test_hash_folds_do_not_depend_on_the_order_of_the_files():
  assert by_hash(IDS) == by_hash(IDS[::-1])


def test_the_data_sets_own_parts_are_used():
  own = {"training": ["a"], "validation": ["b"], "test": ["c"]}
  split, listing = choose_split(["a", "b", "c"], own, "", 0)
  assert (split.training, split.validation, split.test) == (("a",), ("b",), ("c",))
  assert listing["folds"] == [own]


def test_a_file_may_name_one_scan_for_everything(tmp_path):
  path = tmp_path / "one.json"
  path.write_text(json.dumps({"folds": [{part: ["a"] for part in PARTS}]}))
  split, listing = choose_split(["a", "b"], None, str(path), 0)
  assert split.training == split.validation == split.test == ("a",)
  assert listing["name"] == "one"


def test_the_list_written_into_a_run_can_be_given_again(tmp_path):
  first, listing = choose_split(IDS, None, "", 2)
  path = tmp_path / "folds.json"
  path.write_text(json.dumps(listing))
  assert choose_split(IDS, None, str(path), 2)[0] == first


@pytest.mark.parametrize(
  ("content", "fold", "complaint"),
  [
    ("{", 0, "not a list of folds"),
    ("[]", 0, "not a list of folds"),
    ('{"folds": []}', 0, "not a list of folds"),
    ('{"folds": [{"training": [["a"]], "validation": ["a"], "test": [1]}]}', 0, "not a list"),
    ('{"folds": [{"training": ["a"]}]}', 0, "not a list of folds"),
    ('{"folds": [{"training": ["z"], "validation": ["a"], "test": ["a"]}]}', 0, "'z'.* not in"),
    ('{"folds": [{"training": ["a"], "validation": [], "test": ["a"]}]}', 0, "validation part is"),
    ('{"folds": [{"training": ["a"], "validation": ["a"], "test": ["a"]}]}', 1, "folds 0 to 0"),
  ],
)
def test_bad_lists_are_refused(tmp_path, content, fold, complaint):
  path = tmp_path / "folds.json"
  path.write_text(content)
  with pytest.raises(UserError, match=complaint):
    choose_split(["a"], None, str(path), fold)


def test_all_folds_are_pooled_where_each_case_is_tested_once(tmp_path):
  split, listing = choose_split(IDS, None, "", "all")
  assert split.test == split.training == split.validation == tuple(IDS)
  assert len(listing["folds"]) == 5
  own = {"training": ["a"], "validation": ["b"], "test": ["c"]}
  with pytest.raises(UserError, match=r"fold=all: the list \"the data set's own\" has one fold"):
    choose_split(["a", "b", "c"], own, "", "all")
  path = tmp_path / "twice.json"
  path.write_text(json.dumps({"folds": [own, {**own, "training": ["b"]}]}))
  with pytest.raises(UserError, match=r"the list 'twice' tests c in several folds"):
    choose_split(["a", "b", "c"], None, str(path), "all")
  path.write_text(json.dumps({"folds": [own, {**own, "test": ["a"], "validation": []}]}))
  with pytest.raises(UserError, match="validation part is empty"):
    choose_split(["a", "b", "c"], None, str(path), "all")


def test_a_missing_list_and_too_few_cases_are_refused(tmp_path):
  with pytest.raises(UserError, match="No such file"):
    choose_split(["a"], None, str(tmp_path / "none.json"), 0)
  with pytest.raises(UserError, match="part is empty"):
    choose_split(["a"], None, "", 0)
