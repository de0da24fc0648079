import json
import os

import numpy as np
import pytest

from attn_unet_jax.cases import dataset as datasets
from attn_unet_jax.cases.dataset import FolderDataset, RecordDataset
from attn_unet_jax.cases.digests import describe_changes, digest_cases, read_digests
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.volume import Volume
from tfds_pancreas.records import open_records

GRID = (5, 6, 7)


def add_case(folder, name, seed=0):
  rng = np.random.default_rng(seed)
  image = Volume(rng.integers(-1000, 1000, GRID).astype(np.int16), np.eye(4))
  write_nifti(folder / "imagesTr" / f"{name}.nii.gz", image)
  write_nifti(folder / "labelsTr" / f"{name}.nii.gz", Volume(image.array > 500, np.eye(4)))


@pytest.fixture
def folder(tmp_path):
  for seed, name in enumerate("abc"):
    add_case(tmp_path / "data", name, seed)
  return tmp_path / "data"


def _changes(folder, known, ids="abc"):
  dataset = FolderDataset(folder)
  now = digest_cases(dataset, [case for case in ids if case in dataset.ids], known)
  return describe_changes(ids, known, now)


def test_what_changed_appeared_and_went_is_named(folder):
  known = digest_cases(FolderDataset(folder), "abc")
  assert _changes(folder, known) == ""
  other = Volume(np.zeros(GRID, np.uint8), np.eye(4))
  write_nifti(folder / "labelsTr" / "a.nii.gz", other)
  assert _changes(folder, known) == "changed: label of a"
  write_nifti(folder / "imagesTr" / "b.nii.gz", Volume(np.ones(GRID, np.int16), np.eye(4)))
  add_case(folder, "d", 3)
  for part in ("imagesTr", "labelsTr"):
    (folder / part / "c.nii.gz").unlink()
  assert _changes(folder, known) == (
    "changed: image of b, label of a; gone: c; new, and in no part of the run: d"
  )


def test_a_case_of_no_part_of_the_run_is_no_new_one(folder):
  """It was there when the run began; what is in it does not matter."""
  known = digest_cases(FolderDataset(folder), "ab")
  add_case(folder, "c", 9)
  assert _changes(folder, known, "ab") == ""
  assert "c" not in known.cases


def test_many_are_counted(folder):
  for name in "defghij":
    add_case(folder, name)
  known = digest_cases(FolderDataset(folder), "abcdefghij")
  for name in "abcdefg":
    (folder / "labelsTr" / f"{name}.nii.gz").write_bytes(b"other")
  said = _changes(folder, known, "abcdefghij")
  assert said.startswith("changed: label of a, label of b, ")
  assert said.endswith("label of e and 2 more")


def test_a_change_that_hides_its_time_and_size_is_found(folder):
  known = digest_cases(FolderDataset(folder), "abc")
  path = folder / "labelsTr" / "a.nii.gz"
  before, content = path.stat(), bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)
  os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
  assert _changes(folder, known) == "changed: label of a"


def test_files_that_are_as_they_were_are_not_read_again(folder, monkeypatch):
  """Those that only moved, or were only touched, are read, and are equal."""
  known = digest_cases(FolderDataset(folder), "abc")
  read, digest_file = [], datasets._digest_file
  monkeypatch.setattr(
    datasets, "_digest_file", lambda path: read.append(path.name) or digest_file(path)
  )
  assert _changes(folder, known) == ""
  assert read == []
  os.utime(folder / "imagesTr" / "b.nii.gz")
  assert _changes(folder, known) == ""
  assert read == 2 * ["b.nii.gz"]


def test_records_have_digests_of_their_own(phantoms):
  dataset = RecordDataset(open_records("phantom_ct/tiny", phantoms))
  digests = digest_cases(dataset, dataset.ids)
  parts = [part for case in digests.cases.values() for part in (case.image, case.label)]
  assert len(set(parts)) == 2 * len(dataset.ids) == 16
  assert digest_cases(dataset, dataset.ids) == digests


def test_written_and_read_back(folder):
  known, path = digest_cases(FolderDataset(folder), "ab"), folder / "digests.json"
  assert read_digests(path) is None
  path.write_text(json.dumps(known.to_json()))
  assert read_digests(path) == known


@pytest.mark.parametrize(
  "content",
  ["[]", "{", '{"format": 2, "cases": {}, "ids": []}', '{"format": 1, "cases": [], "ids": []}',
   '{"format": 1, "cases": {"a": {"image": "", "label": ""}}, "ids": []}', '{"format": 1}'],
)  # fmt: skip
def test_a_damaged_file_says_what_to_do(tmp_path, content):
  (tmp_path / "digests.json").write_text(content)
  with pytest.raises(UserError, match=r"digests\.json: not .*; remove it: the run then goes on"):
    read_digests(tmp_path / "digests.json")
