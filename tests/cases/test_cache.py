"""Prepared scans on disk: read back to the bit, made once, never half a file, never stale."""

import dataclasses
import os
import resource
import shutil

import numpy as np
import pytest

from attn_unet_jax.cases.cache import digest_recipe, load_or_prepare, remove_left_over
from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.cases.foreground import foreground_positions
from attn_unet_jax.cases.prepare import WorkingCase
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.volume import Volume
from tests.configs import with_keys


@pytest.fixture
def case():
  rng = np.random.default_rng(0)
  image = np.asfortranarray(rng.integers(-1000, 2000, (30, 20, 25)).astype(np.int16))
  return WorkingCase("a/b ü", image, (image > 1500).astype(np.uint8), 1 / 3, 2**0.5)


def _interrupt(*_):
  raise KeyboardInterrupt


def _no():
  raise AssertionError("prepared again")


def test_a_case_comes_back_to_the_bit_and_is_prepared_once(case, tmp_path):
  folder = tmp_path / "prepared"
  assert load_or_prepare(folder, case.id, "x", lambda: case) is case
  (file,) = folder.iterdir()
  again = load_or_prepare(folder, case.id, "x", _no)
  np.testing.assert_array_equal(again.image, case.image)
  np.testing.assert_array_equal(again.label, case.label)
  assert (again.id, again.mean, again.sd) == (case.id, case.mean, case.sd)
  assert (again.image.dtype, again.label.dtype) == (np.int16, np.uint8)
  assert file.name.endswith(".x.array_record")
  np.testing.assert_array_equal(again.positions, foreground_positions(case.label))


def test_a_case_without_foreground_has_no_positions(case, tmp_path):
  empty = dataclasses.replace(case, label=np.zeros_like(case.label))
  load_or_prepare(tmp_path, case.id, "x", lambda: empty)
  assert load_or_prepare(tmp_path, case.id, "x", _no).positions.shape == (0, 3)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_file_is_made_again(case, tmp_path, damage):
  load_or_prepare(tmp_path, case.id, "x", lambda: case)
  (file,) = tmp_path.iterdir()
  content = bytearray(file.read_bytes())
  if damage == "flipped":
    content[len(content) // 2] ^= 4
  file.write_bytes({"truncated": content[:-100], "flipped": content, "empty": b""}[damage])
  calls = []
  again = load_or_prepare(tmp_path, case.id, "x", lambda: calls.append(1) or case)
  assert calls == [1]
  np.testing.assert_array_equal(again.image, case.image)
  np.testing.assert_array_equal(load_or_prepare(tmp_path, case.id, "x", _no).image, case.image)


def test_a_full_disk_is_the_users_error_and_leaves_nothing_half_written(case, tmp_path):
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
  try:
    with pytest.raises(UserError, match=r"--config\.data\.prepared"):
      load_or_prepare(tmp_path, case.id, "x", lambda: case)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_half_written_is_removed_after_a_day(case, tmp_path, monkeypatch):
  """Until then another process may be writing it."""
  monkeypatch.setattr("pathlib.Path.replace", _interrupt)
  monkeypatch.setattr("pathlib.Path.unlink", _interrupt)
  with pytest.raises(KeyboardInterrupt):
    load_or_prepare(tmp_path, case.id, "x", lambda: case)
  monkeypatch.undo()
  (left,) = tmp_path.iterdir()
  load_or_prepare(tmp_path, case.id, "x", lambda: case)
  whole = {path for path in tmp_path.iterdir() if path != left}
  for path in (*whole, left):
    os.utime(path, (path.stat().st_mtime - 23 * 3600,) * 2)
  remove_left_over(tmp_path)
  assert set(tmp_path.iterdir()) == {*whole, left}
  for path in (*whole, left):
    os.utime(path, (path.stat().st_mtime - 2 * 3600,) * 2)
  remove_left_over(tmp_path)
  assert set(tmp_path.iterdir()) == whole
  remove_left_over(tmp_path / "not there")


def test_digests_differ_with_any_part():
  assert digest_recipe(1, "a") == digest_recipe(1, "a")
  assert (
    len({digest_recipe(1, "a"), digest_recipe("1", "a"), digest_recipe(1), digest_recipe((1, "a"))})
    == 4
  )


@pytest.fixture
def config(config, tmp_path):
  data = {"data.dataset": "", "data.folder": str(tmp_path / "data"), "data.spacing_mm": 1.0}
  return with_keys(config, data)


@pytest.fixture
def folder(tmp_path):
  for name in "abcdef":
    _write(tmp_path / "data", name, 0)
  return tmp_path


def _write(data, name, seed):
  rng = np.random.default_rng(seed)
  image = Volume(rng.integers(-1000, 1000, (5, 6, 7)).astype(np.int16), np.eye(4))
  write_nifti(data / "imagesTr" / f"{name}.nii.gz", image)
  write_nifti(data / "labelsTr" / f"{name}.nii.gz", Volume(image.array > 900, np.eye(4)))


def _cases(config, folder):
  return open_fold(config.data).load("training").cache_in(folder / "prepared")


def test_only_what_changed_is_prepared_again(config, folder):
  first = [case.image for case in _cases(config, folder)]
  prepared = folder / "prepared"
  assert len(list(prepared.iterdir())) == len(first)
  again = _cases(config, folder)
  np.testing.assert_array_equal(again[0].image, first[0])
  assert len(list(prepared.iterdir())) == len(first)
  _write(folder / "data", again.ids[0], 1)
  os.utime(folder / "data" / "imagesTr" / f"{again.ids[0]}.nii.gz", (1, 1))
  assert (_cases(config, folder)[0].image != first[0]).any()
  assert len(list(prepared.iterdir())) == len(first) + 1
  config = with_keys(config, {"data.spacing_mm": 2.0})
  assert _cases(config, folder)[1].image.shape == (2, 3, 4)


@pytest.mark.parametrize(
  ("one", "other"),
  [
    ({"blur_mm": 0.0}, {"blur_mm": 2.0}),
    ({"label_resampling": "nearest"}, {"label_resampling": "onehot_linear"}),
    ({"label_resampling": "nearest", "spacing_mm": 2.0}, {"spacing_mm": 2.0}),
    ({}, {"label_resampling": "occupancy"}),
    ({"labels": "pancreas=1"}, {"labels": "pancreas=2,background=1"}),
    ({"labels": "pancreas=2,background=1"}, {"labels": "pancreas=2,unlabelled=1"}),
  ],
)
def test_by_another_recipe_a_case_is_prepared_anew(config, folder, one, other):
  config = with_keys(config, {"data.spacing_mm": 0.7})
  found = []
  for recipe in (one, other):
    changed = with_keys(config, {f"data.{key}": value for key, value in recipe.items()})
    found.append(_cases(changed, folder)[0])
  assert any(
    (getattr(found[0], name) != getattr(found[1], name)).any() for name in ("image", "label")
  )


def test_a_kept_scan_does_not_hide_a_value_outside_the_mapping(config, folder):
  config = with_keys(config, {"data.labels": "pancreas=2,background=*"})
  _cases(config, folder)[0]
  config = with_keys(config, {"data.labels": "pancreas=2"})
  with pytest.raises(UserError, match=r"label values \[1\] are outside the mapping pancreas=2"):
    _cases(config, folder)[0]


def test_a_scan_that_one_run_accepted_is_not_hidden_from_another(config, folder):
  name = open_fold(config.data).split.training[0]
  path = next((folder / "data" / "imagesTr").glob(f"{name}.*"))
  values = np.random.default_rng(0).integers(0, 256, (5, 6, 7)).astype(np.uint8)
  write_nifti(path, Volume(values, np.eye(4)))
  accepting = with_keys(config, {"data.accept": "hounsfield"})
  assert _cases(accepting, folder)[0].image.min() >= 0
  with pytest.raises(UserError, match="--accept=hounsfield"):
    _cases(config, folder)[0]


def test_a_label_that_changed_is_prepared_anew(config, folder):
  name = open_fold(config.data).split.training[0]
  before = _cases(config, folder)[0].label
  label = Volume(np.ones((5, 6, 7), np.uint8), np.eye(4))
  write_nifti(folder / "data" / "labelsTr" / f"{name}.nii.gz", label)
  assert not before.all()
  assert _cases(config, folder)[0].label.all()


def test_a_label_that_hides_its_change_is_prepared_anew(config, folder):
  """Uncompressed labels of a scan are equally long, and an archive may give them one time."""
  name = open_fold(config.data).split.training[0]
  path = folder / "data" / "labelsTr" / f"{name}.nii.gz"
  before, old = path.stat(), _cases(config, folder)[0].label
  label = Volume(np.ones((5, 6, 7), np.uint8), np.eye(4))
  write_nifti(path, label)
  # As long as before: what follows the last member of a gzip file may be zeros.
  path.write_bytes(path.read_bytes().ljust(before.st_size, b"\0"))
  os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
  assert path.stat().st_size == before.st_size
  assert not old.all()
  assert _cases(config, folder)[0].label.all()


def test_data_that_was_moved_or_touched_finds_its_prepared_cases(config, folder):
  _cases(config, folder)[0]
  (made,) = (folder / "prepared").iterdir()
  shutil.copytree(folder / "data", folder / "moved")
  _cases(with_keys(config, {"data.folder": str(folder / "moved")}), folder)[0]
  assert list((folder / "prepared").iterdir()) == [made]


def test_thinning_and_the_patch_are_not_kept(config, folder):
  """They differ between the parts of a fold, and between runs that share the folder."""
  dense = _cases(config, folder)[0].label
  config = with_keys(config, {"data.labelled_slices": (0, 0, 3)})
  sparse = _cases(config, folder)[0].label
  assert (sparse != dense).any()
  config = with_keys(config, {"data.labelled_slices": (0, 0, 0)})
  np.testing.assert_array_equal(_cases(config, folder)[0].label, dense)


def test_the_sets_size_is_known_from_headers(config, folder, monkeypatch):
  write_nifti(
    folder / "data" / "imagesTr" / "a.nii.gz",
    Volume(np.zeros((4, 20, 3), np.int16), np.diag([1.0, 0.5, -2.0, 1.0])),
  )
  cases = open_fold(config.data).load("training")
  monkeypatch.setattr(type(cases), "_prepare_case", lambda *_: _no())
  extent = (5, 10, 7) if "a" in cases.ids else (5, 6, 7)
  assert cases.bytes_together() == 3 * len(cases) * np.prod(extent)
