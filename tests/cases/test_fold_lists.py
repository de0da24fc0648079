"""The packaged lists of Pancreas-CT folds, made again from their rules."""

import hashlib
import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import KFold

from attn_unet_jax.cases import folds
from attn_unet_jax.cases.folds import PARTS, choose_split
from attn_unet_jax.runtime.errors import UserError
from tests.conftest import SHARED

LISTS = Path(folds.__file__).parent / "fold_lists"
NAMES = ("classic4_80", "classic4_82", "kfold5_80", "kfold5_82", "ours_59_21", "ours_61_21")
ONE_PATIENT = {"PANCREAS_0002", "PANCREAS_0025", "PANCREAS_0070"}
DUPLICATES = ONE_PATIENT - {"PANCREAS_0002"}
ALL = [f"PANCREAS_{n:04d}" for n in range(1, 83)]


def read(name):
  return json.loads((LISTS / f"{name}.json").read_text())


def by_hash(ids):
  return sorted(ids, key=lambda case: hashlib.sha256(case.encode()).hexdigest())


def fold(ids, test):
  """Six of the training cases validate, by hash; never the patient who is there three times."""
  training = set(ids) - set(test)
  validation = by_hash(training - ONE_PATIENT)[:6]
  parts = (training - set(validation), validation, test)
  return {part: sorted(cases) for part, cases in zip(PARTS, parts, strict=True)}


def classic(ids):
  blocks = ((1, 20), (21, 40), (41, 61), (62, 82))
  return [fold(ids, set(ALL[a - 1 : b]) & set(ids)) for a, b in blocks]


def kfold(ids):
  splits = KFold(5, shuffle=True, random_state=0).split(ids)
  return [fold(ids, [ids[i] for i in test]) for _, test in splits]


def ours(ids):
  return [fold(ids, by_hash(set(ALL) - ONE_PATIENT)[-21:])]


RULES = {"classic4": classic, "kfold5": kfold, "ours": ours}


def cases_of(name):
  """Which cases a list is about: all 82, or those without the duplicates."""
  return ALL if name.endswith(("_82", "61_21")) else sorted(set(ALL) - DUPLICATES)


def leaks(split):
  """Parts of a fold that share the patient who was scanned once and published three times."""
  holding = [part for part in PARTS if ONE_PATIENT & set(split[part])]
  return list(combinations(holding, 2))


def test_these_lists_are_packaged():
  assert sorted(path.stem for path in LISTS.glob("*.json")) == sorted(
    [*NAMES, "msd07_slabs", "msd07_slabs_25", "one_scan"]
  )


def test_the_list_of_real_slabs_follows_its_rule():
  """A third tests; one slab is one patient, so that no number is in two parts."""
  listing = read("msd07_slabs")
  (split,) = listing["folds"]
  ids = by_hash(case for part in PARTS for case in split[part])
  training, validation, test = (sorted(part) for part in (ids[7:-12], ids[:7], ids[-12:]))
  assert split == {"training": training, "validation": validation, "test": test}
  assert len(set(ids)) == 37
  assert "same patient" in listing["note"]


def test_the_list_without_validation_tests_the_same_patients():
  (split,), (usual,) = read("msd07_slabs_25")["folds"], read("msd07_slabs")["folds"]
  assert split == {**usual, "training": sorted(usual["training"] + usual["validation"])}
  assert not set(split["training"]) & set(split["test"])


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real data here")
def test_the_list_of_real_slabs_has_every_slab():
  (split,) = read("msd07_slabs")["folds"]
  files = sorted(path.name[:-7] for path in (SHARED / "msd07_slabs" / "image").glob("*.nii.gz"))
  assert sorted(case for part in PARTS for case in split[part]) == files


@pytest.mark.parametrize("name", NAMES)
def test_a_list_follows_its_rule(name):
  assert read(name)["folds"] == RULES[name.split("_")[0]](cases_of(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_case_is_in_one_part_of_a_fold(name):
  for split in read(name)["folds"]:
    assert sorted(case for part in PARTS for case in split[part]) == cases_of(name)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("classic4_82", "kfold5_82")])
def test_no_patient_is_on_both_sides(name):
  assert not any(leaks(split) for split in read(name)["folds"])


@pytest.mark.parametrize("name", ["classic4_82", "kfold5_82"])
def test_a_published_list_that_leaks_says_so(name):
  listing = read(name)
  leaking = [k for k, split in enumerate(listing["folds"]) if leaks(split)]
  assert leaking == listing["leaking_folds"]
  assert "one patient" in listing["note"]


def test_sizes_are_the_published_ones():
  sizes = {name: [len(split["test"]) for split in read(name)["folds"]] for name in NAMES}
  assert sizes["classic4_82"] == [20, 20, 21, 21]
  assert sizes["classic4_80"] == [20, 19, 21, 20]
  assert sizes["kfold5_82"] == [17, 17, 16, 16, 16]
  assert sizes["ours_61_21"] == sizes["ours_59_21"] == [21]
  assert read("ours_61_21")["folds"][0]["test"] == read("ours_59_21")["folds"][0]["test"]


def test_the_paper_codes_folds_are_those_of_the_scikit_learn_of_its_day():
  """KFold shuffled by `RandomState(0).shuffle` even then, and NumPy has frozen that stream."""
  order = np.random.RandomState(0).permutation(82)
  first = sorted(ALL[index] for index in order[:17])
  assert read("kfold5_82")["folds"][0]["test"] == first


@pytest.mark.parametrize("name", NAMES)
def test_a_list_is_chosen_by_name_and_says_where_it_is_from(name):
  ids = cases_of(name)
  split, listing = choose_split(ids, None, name, 0)
  assert listing["name"] == name
  assert {"source", "note"} <= set(listing)
  assert sorted(split.training + split.validation + split.test) == ids


def test_an_unknown_name_is_refused_with_the_known_ones():
  with pytest.raises(UserError, match=r"No such file.*classic4_80.*ours_61_21"):
    choose_split(ALL, None, "classic5", 0)


def test_a_list_of_82_cases_on_80_says_which_are_missing():
  with pytest.raises(UserError, match=r"PANCREAS_0025.*not in the data"):
    choose_split(cases_of("classic4_80"), None, "classic4_82", 0)
