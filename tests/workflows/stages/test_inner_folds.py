"""The groups of training cases that inner folds hold out: dealt once, and kept."""

import json
from types import SimpleNamespace

import pytest

from attn_unet_jax.cases.folds import CaseSplit
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.workflows.stages.inner_folds import (
  deal_groups,
  recall_groups,
  split_groups,
  write_groups,
)

TRAINING = tuple(f"c{number}" for number in range(11))


def _fold(training):
  return SimpleNamespace(split=_split(training), data=SimpleNamespace(fold=0))


def _split(training):
  return CaseSplit(training, ("v",), ("t",))


def test_every_case_is_held_out_once(tmp_path):
  splits = split_groups(_split(TRAINING), deal_groups(TRAINING, 3), tmp_path)
  assert sorted(case for split in splits for case in split.test) == sorted(TRAINING)
  assert sorted(len(split.test) for split in splits) == [3, 4, 4]
  for split in splits:
    assert sorted(split.training + split.test) == sorted(TRAINING)
    assert split.validation == ("v",)
  assert deal_groups(TRAINING[::-1], 3)[0] == splits[0].test
  with pytest.raises(UserError, match="only 2 training cases"):
    deal_groups(("a", "b"), 3)


def test_groups_are_recalled_once_the_run_has_begun(tmp_path):
  groups = deal_groups(TRAINING, 3)
  write_groups(tmp_path, groups)
  rest = TRAINING[1:]
  assert recall_groups(tmp_path, _fold(rest), 3) == deal_groups(rest, 3) != groups
  (tmp_path / "body.json").write_text("{}")
  assert recall_groups(tmp_path, _fold(rest), 3) == groups
  (tmp_path / "inner.json").write_text("[3]")
  with pytest.raises(UserError, match=r"inner\.json: not the inner folds of this run; bring it"):
    recall_groups(tmp_path, _fold(rest), 3)


def test_a_run_of_an_earlier_version_has_the_groups_of_the_cases_that_it_wrote(tmp_path):
  parts = {"training": list(TRAINING), "validation": ["v"], "test": ["t"]}
  (tmp_path / "folds.json").write_text(json.dumps({"name": "a", "folds": [parts]}))
  (tmp_path / "body.json").write_text("{}")
  assert recall_groups(tmp_path, _fold(TRAINING[1:]), 3) == deal_groups(TRAINING, 3)


@pytest.mark.parametrize(("left", "lack"), [(0, "train on"), (1, "hold out")])
def test_an_inner_fold_without_a_case_is_refused(tmp_path, left, lack):
  groups = deal_groups(TRAINING, 2)
  with pytest.raises(UserError, match=rf"inner fold 0 has no case left to {lack}; put the data"):
    split_groups(_split(groups[left]), groups, tmp_path)
