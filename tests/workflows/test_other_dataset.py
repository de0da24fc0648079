import json
from types import SimpleNamespace

import numpy as np
import pytest

from attn_unet_jax.labels import UNLABELLED, parse_mapping
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.evaluate_run import accept_too
from attn_unet_jax.workflows.load_run import LoadedRun
from attn_unet_jax.workflows.other_dataset import list_seen_cases, open_other_dataset
from tests.configs import with_keys

NAMES = {"background": 0, "Spleen": 1, "pancreas": 10, "liver": 4}


def _folder(folder, cases, names=None):
  rng = np.random.default_rng(0)
  for name in cases:
    image = Volume(rng.integers(-1000, 1000, (4, 5, 6)).astype(np.int16), np.eye(4))
    label = Volume(rng.choice([0, 1, 4, 10], (4, 5, 6)).astype(np.uint8), np.eye(4))
    write_nifti(folder / "imagesTr" / f"{name}.nii", image)
    write_nifti(folder / "labelsTr" / f"{name}.nii", label)
  if names:
    (folder / "dataset.json").write_text(json.dumps({"labels": names}))
  return str(folder)


@pytest.fixture
def run(config, tmp_path):
  config = with_keys(
    config,
    {
      "data.dataset": "",
      "data.folder": _folder(tmp_path / "own", "abcdefg"),
      "data.labels": "liver=1,pancreas=2",
      "data.fold": 3,
    },
  )
  return config


def test_all_cases_are_taken_and_classes_are_found_by_name(run, tmp_path):
  folder = _folder(tmp_path / "other", ["x", "c"], NAMES)
  other = open_other_dataset(run, {"folder": folder}, None, ["a", "c"])
  assert other.name == "other"
  assert other.fold.split.test == ("c", "x")
  assert other.about["data"] == {"folder": folder}
  assert other.about["seen_in_training"] == ["c"]
  case = other.fold.dataset.load("x")
  classes = other.fold.mapping.apply(case.label.array, "x")
  np.testing.assert_array_equal(classes, (case.label.array == 4) + 2 * (case.label.array == 10))
  assert other.describe() == "other: 2 cases, classes liver=4,pancreas=10 (background: Spleen)"


def test_a_class_is_found_by_a_name_that_has_spaces_in_the_other_set(run, tmp_path):
  run = with_keys(run, {"data.labels": "leftkidney=1,pancreas=2"})
  folder = _folder(tmp_path / "other", ["x"], {"left kidney": 4, "pancreas": 10})
  mapping = open_other_dataset(run, {"folder": folder}, None, []).fold.mapping
  assert str(mapping) == "leftkidney=4,pancreas=10"


def test_the_runs_own_cases_are_those_of_its_fold(run, tmp_path):
  listing = tmp_path / "folds.json"
  own = [{"training": [f"{k}"], "validation": ["v"], "test": []} for k in range(4)]
  listing.write_text(json.dumps({"name": "mine", "folds": own}))
  assert list_seen_cases(run, listing) == ["3", "v"]
  run = with_keys(run, {"data.fold": 4})
  with pytest.raises(UserError, match=rf"data\.fold=4: the list '{listing}' has folds 0 to 3"):
    list_seen_cases(run, listing)


def test_training_cases_of_the_second_set_were_seen(run, tmp_path):
  listing = tmp_path / "folds.json"
  own = {"training": ["a"], "validation": ["b"], "test": ["c"]}
  listing.write_text(json.dumps({"name": "mine", "folds": [own], "also": ["x", "y"]}))
  run = with_keys(run, {"data.fold": 0, "data.also": _folder(tmp_path / "also", "xyz", NAMES)})
  seen = list_seen_cases(run, listing)
  assert seen == ["a", "b", "x", "y"]
  other = open_other_dataset(run, {"folder": run.data.also}, None, seen)
  assert other.about["seen_in_training"] == ["x", "y"]
  assert list_seen_cases(with_keys(run, {"data.also": ""}), listing) == ["a", "b"]


def test_a_run_of_no_data_has_no_set_of_its_own(run, tmp_path):
  """As `convert` makes it, even if its config names one: nobody knows what it was trained on."""
  assert list_seen_cases(run, tmp_path / "folds.json") is None
  other = open_other_dataset(
    run, {"folder": run.data.folder, "labels": "liver=1,pancreas=10+4"}, None, None
  )
  assert other.fold.split.test == tuple("abcdefg")
  assert other.about["seen_in_training"] is None


def test_of_many_other_labels_some_are_named(run, tmp_path):
  names = NAMES | {f"organ{value}": value for value in range(20, 60)}
  other = open_other_dataset(run, {"folder": _folder(tmp_path / "other", "x", names)}, None, [])
  assert other.describe().endswith("organ32, organ33 and 26 more)")


def test_labels_say_which_is_which_in_any_order(run, tmp_path):
  folder = _folder(tmp_path / "other", ["x"], NAMES)
  run = with_keys(run, {"loss.weighted_ce": 1.0, "loss_options.class_weights": (1.0, 2.0, 3.0)})
  changes = {"folder": folder, "labels": "pancreas=10+4,spare=7,liver=Spleen"}
  mapping = open_other_dataset(run, changes, None, []).fold.mapping
  assert mapping.class_indices == {"liver": 1, "pancreas": 2}
  np.testing.assert_array_equal(mapping.apply(np.array([0, 1, 4, 10, 7]), ""), [0, 1, 2, 2, 0])


def test_a_part_is_one_of_the_other_sets_folds(run, tmp_path):
  folder = _folder(tmp_path / "other", "uvwxyz", NAMES)
  parts = [open_other_dataset(run, {"folder": folder, "fold": k}, "test", []) for k in range(5)]
  assert parts[0].name == "other/test"
  assert sorted(case for part in parts for case in part.fold.split.test) == list("uvwxyz")


@pytest.mark.parametrize(
  ("changes", "part", "complaint"),
  [
    ({"labels": "pancreas=1"}, None, "--config.data.labels: name the other data set too"),
    ({"folder": "other", "fold": 1}, None, "name the part of the folds by --part"),
    ({"folder": "own"}, None, "own: this is the run's own data set"),
    ({"folder": "other", "dataset": "phantom_ct/tiny"}, None, "give one of the two"),
    ({"folder": "empty"}, None, "no images found; put images into"),
    ({"folder": "unnamed"}, None, r"labels have no names.*labels=liver=VALUE,pancreas=VALUE"),
    (
      {"folder": "other", "labels": "pancreas"},
      None,
      "no label is called liver; the run's classes are liver, pancreas, --config.data.labels names "
      "pancreas",
    ),
    (
      {"folder": "few"},
      None,
      r"few: no label is called liver, pancreas; the run's classes are liver, pancreas, its labels "
      r"are background, Liver; say which is which by "
      r"--config\.data\.labels=liver=Liver,pancreas=NAME",
    ),
    (
      {"folder": "other", "labels": "liver=none,pancreas=none,Spleen=1"},
      None,
      "other: config.data.labels='liver=none,pancreas=none,Spleen=1' labels none of the run's "
      "classes, liver, pancreas: nothing could be scored",
    ),
    ({"folder": "test"}, None, "a folder called 'test' would be taken for a part"),
  ],
)
def test_what_does_not_fit_is_refused(run, tmp_path, changes, part, complaint):
  _folder(tmp_path / "other", "x", NAMES)
  _folder(tmp_path / "few", "x", {"background": 0, "Liver": 4})
  _folder(tmp_path / "unnamed", "x")
  _folder(tmp_path / "test", "x", NAMES)
  if "folder" in changes:
    changes = {**changes, "folder": str(tmp_path / changes["folder"])}
  with pytest.raises(UserError, match=complaint):
    open_other_dataset(run, changes, part, [], (run.data,))


def test_a_mapping_is_restricted_in_the_order_asked_for():
  mapping = parse_mapping("a=1,b=2+3,c=4,unlabelled=5,background=*", None).restrict_to(["c", "a"])
  expected = [0, 2, 0, 0, 1, UNLABELLED, 0]
  np.testing.assert_array_equal(mapping.apply(np.arange(7), ""), expected)
  assert mapping.classes == ("c", "a")


def test_a_scored_set_is_judged_by_what_the_run_and_the_flag_accept(run, tmp_path):
  run = with_keys(run, {"data.accept": "geometry"})
  trained = LoadedRun(run, ("liver", "pancreas"), SimpleNamespace(), 1)
  accepting = accept_too(trained, frozenset({"hounsfield"})).config
  assert accepting.data.acceptance == {"geometry", "hounsfield"}
  folder = _folder(tmp_path / "other", "ab", NAMES)
  values = np.random.default_rng(0).integers(0, 256, (4, 5, 6)).astype(np.uint8)
  write_nifti(tmp_path / "other" / "imagesTr" / "a.nii", Volume(values, np.eye(4)))
  other = open_other_dataset(accepting, {"folder": folder}, None, None).fold.dataset
  assert other.load("a").image.array.min() >= 0
  with pytest.raises(UserError, match="--accept=hounsfield"):
    open_other_dataset(run, {"folder": folder}, None, None).fold.dataset.load("a")
