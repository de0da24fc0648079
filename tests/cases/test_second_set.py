"""A second data set: its training cases behind the run's own, in the classes of the network."""

import json
from dataclasses import replace

import numpy as np
import pytest

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.cases.joined_cases import JoinedCases, count_also, get_painted, take_maps
from attn_unet_jax.labels import rest_value
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.volume import Volume
from tests.configs import with_keys


def _add(folder, name, shape):
  image = np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)
  write_nifti(folder / "imagesTr" / f"{name}.nii.gz", Volume(image, np.eye(4)))
  write_nifti(folder / "labelsTr" / f"{name}.nii.gz", Volume(image > 900, np.eye(4)))


@pytest.fixture
def data(config, tmp_path):
  for name in "abcdef":
    _add(tmp_path / "own", name, (5, 6, 7))
  for name in "xyz":
    _add(tmp_path / "also", name, (8, 4, 7))
  keys = {
    "data.dataset": "",
    "data.folder": str(tmp_path / "own"),
    "data.spacing_mm": 1.0,
    "data.labels": "liver=1,pancreas=none",
    "data.also": str(tmp_path / "also"),
    "data.also_labels": "pancreas=1",
  }
  return with_keys(config, keys).data


def test_training_cases_are_those_of_both_sets_with_what_each_labels(data):
  fold = open_fold(data)
  cases = fold.load("training")
  assert isinstance(cases, JoinedCases)
  assert list(cases.ids) == [*fold.split.training, "x", "y", "z"]
  assert [case.id for case in cases] == list(cases.ids)
  assert count_also(cases) == 3
  assert set(np.unique(cases[0].label)) == {1, rest_value(0)}
  assert set(np.unique(cases[-1].label)) == {2, rest_value(1)}
  assert cases.bytes_together() == len(cases) * 8 * 6 * 7 * 3
  assert [along.stop for along in cases.case_slices("y")] == [8, 4, 7]
  assert not isinstance(fold.load("validation"), JoinedCases)
  assert "3 training cases of" in fold.describe()
  assert data.labelled_sets == ((True, False), (False, True))


def test_the_maps_of_the_second_set_alone_are_painted(data):
  cases = open_fold(data).load("training")
  maps = take_maps(cases)
  assert (maps.own.as_maps, maps.also.as_maps) == (False, True)
  assert get_painted(cases) is cases.also


def test_a_run_keeps_the_cases_that_it_began_with(data, tmp_path):
  listing = tmp_path / "folds.json"
  listing.write_text(open_fold(data).to_json())
  assert json.loads(listing.read_text())["also"] == ["x", "y", "z"]
  _add(tmp_path / "also", "w", (8, 4, 7))
  assert list(open_fold(data, listing).load("training").also.ids) == ["x", "y", "z"]
  for part in ("imagesTr", "labelsTr"):
    (tmp_path / "also" / part / "y.nii.gz").unlink()
  fold = open_fold(data, listing)  # a run is scored without its second set
  with pytest.raises(
    UserError, match=r"data\.also=.*no longer there, such as y; .*accept_changes=true"
  ):
    fold.load("training")


def test_a_case_that_may_be_tested_is_not_trained_on(data, tmp_path):
  _add(tmp_path / "also", "a", (8, 4, 7))
  with pytest.raises(UserError, match=r"called as cases of the run's own set, such as a; rename"):
    open_fold(data)
  folds = tmp_path / "others.json"
  one = {"training": ["x"], "validation": ["y"], "test": ["z"]}
  folds.write_text(json.dumps({"folds": [one]}))
  chosen = open_fold(replace(data, also_folds=str(folds)))
  assert list(chosen.load("training").also.ids) == ["x"]


def test_a_list_of_another_run_names_no_cases_of_the_second_set(data, tmp_path):
  _add(tmp_path / "also", "a", (8, 4, 7))
  others = tmp_path / "folds.json"
  one = {"training": ["b"], "validation": ["c"], "test": ["a"]}
  others.write_text(json.dumps({"folds": [one], "also": ["a", "x"]}))
  data = replace(data, folds=str(others))
  with pytest.raises(UserError, match="called as cases of the run's own set, such as a"):
    open_fold(data)
  assert "also" not in json.loads(open_fold(replace(data, also="")).to_json())
  for part in ("imagesTr", "labelsTr"):
    (tmp_path / "also" / part / "a.nii.gz").unlink()
  assert open_fold(data).listing["also"] == ["x", "y", "z"]


def test_a_set_without_a_class_of_the_run_is_refused(data):
  with pytest.raises(UserError, match=r"also_labels='spleen=1': none of the run's classes liver"):
    open_fold(replace(data, also_labels="spleen=1")).load("training")
