import json

import numpy as np
import pytest

from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.labels import UNLABELLED, rest_value
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.volume import Volume
from tests.configs import with_keys


def _add(folder, name):
  rng = np.random.default_rng(0)
  image = Volume(rng.integers(-1000, 1000, (5, 6, 7)).astype(np.int16), np.eye(4))
  write_nifti(folder / "imagesTr" / f"{name}.nii.gz", image)
  write_nifti(folder / "labelsTr" / f"{name}.nii.gz", Volume(image.array > 900, np.eye(4)))


@pytest.fixture
def own(config, tmp_path):
  """The config of a run on that folder."""
  return with_keys(config, {"data.dataset": "", "data.folder": str(tmp_path)})


@pytest.fixture
def folder(tmp_path):
  for name in "abcdef":
    _add(tmp_path, name)
  return tmp_path


def test_the_folds_that_a_run_wrote_hold_when_a_case_is_added(own, folder):
  first = open_fold(own.data)
  listing = folder / "folds.json"
  listing.write_text(first.to_json())
  for name in "ghijk":
    _add(folder, name)
  assert open_fold(own.data).split != first.split
  assert open_fold(own.data, listing).split == first.split
  assert json.loads(open_fold(own.data, listing).to_json()) == json.loads(listing.read_text())


def test_a_case_that_has_gone_is_named(own, folder):
  listing = folder / "folds.json"
  listing.write_text(open_fold(own.data).to_json())
  gone = open_fold(own.data).split.test[0]
  for part in ("imagesTr", "labelsTr"):
    (folder / part / f"{gone}.nii.gz").unlink()
  with pytest.raises(UserError, match=f"'{gone}'.*not in the data"):
    open_fold(own.data, listing)


def test_parts_are_loaded_on_the_working_grid(own, folder):
  own = with_keys(own, {"data.spacing_mm": 1.0})
  fold = open_fold(own.data)
  cases = fold.load("training")
  assert [case.id for case in cases] == list(fold.split.training)
  assert cases[0].image.shape == (5, 6, 7)
  assert "training" in fold.describe()


def test_only_training_labels_are_thinned(config, phantoms):
  config = with_keys(config, {"data.dir": str(phantoms)})
  dense = open_fold(config.data)
  config = with_keys(config, {"data.labelled_slices": (0, 0, 2)})
  sparse = open_fold(config.data)
  for part in ("training", "validation"):
    forgotten = [(case.label == 255).any() for case in sparse.load(part)]
    assert all(forgotten) == (part == "training") == any(forgotten)
  before, after = dense.load("training")[0].label, sparse.load("training")[0].label
  np.testing.assert_array_equal(after[after != 255], before[after != 255])


def test_a_run_of_no_data_says_what_can_be_done_with_it(config, folder):
  with pytest.raises(
    UserError, match=r"made/folds\.json: not found; .*convert.*init\.workdir=.*made"
  ):
    open_fold(config.data, folder / "made" / "folds.json")


def test_background_of_a_set_that_lacks_a_class_may_be_that_class(own, folder):
  own = with_keys(own, {"data.spacing_mm": 1.0})
  whole = open_fold(own.data).load("training")
  partial = open_fold(with_keys(own, {"data.labels": "liver=none,pancreas=1"}).data)
  for part in ("training", "validation"):
    (case, *_) = partial.load(part)
    (same,) = (one for one in open_fold(own.data).load(part) if one.id == case.id)
    np.testing.assert_array_equal(case.label, np.where(same.label == 1, 2, rest_value(0)))
    np.testing.assert_array_equal(case.centres, same.centres)
  thin = {"data.labels": "liver=none,pancreas=1", "data.labelled_slices": (0, 0, 3)}
  (case, *_) = open_fold(with_keys(own, thin).data).load("training")
  (same, *_) = whole
  assert set(np.unique(case.label)) == {2, rest_value(0), UNLABELLED}
  assert (same.label[tuple(case.centres.T)] == 1).all()
