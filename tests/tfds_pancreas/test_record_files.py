"""A folder of records that is damaged, or comes from others: refused by the name of the file."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from attn_unet_jax.cases.dataset import RecordDataset
from attn_unet_jax.runtime.errors import UserError
from tfds_pancreas import records
from tfds_pancreas.records import open_records

TINY = "phantom_ct/tiny"
SHARD = "phantom_ct-train.array_record-00000-of-00002"
INFO, FEATURES, METADATA = "dataset_info.json", "features.json", "metadata.json"


@pytest.fixture
def folder(phantoms, tmp_path):
  """The files of a data set, to be damaged."""
  shutil.copytree(phantoms / TINY, tmp_path / TINY)
  return tmp_path / TINY / "1.0.0"


def _read_all(folder: Path) -> int:
  dataset = RecordDataset(open_records(TINY, folder.parents[2]))
  return sum(dataset.load(case).image.array.size for case in dataset.ids)


def _flip_a_bit(path: Path) -> None:
  content = bytearray(path.read_bytes())
  content[len(content.rstrip(b"\0")) // 2] ^= 1
  path.write_bytes(content)


def _cut(size):
  return lambda path: path.write_bytes(path.read_bytes()[:size])


def _edit(old, new):
  return lambda path: path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize(
  ("name", "damage", "told"),
  [
    (SHARD, _flip_a_bit, r"record 1 of 'train' is damaged \(.*hash mismatch"),
    (SHARD, _cut(40000), "damaged"),
    (SHARD, _cut(65536), "damaged"),
    (SHARD, _cut(0), "damaged"),
    (SHARD, lambda path: path.write_bytes(os.urandom(131072)), "damaged"),
    (SHARD, Path.unlink, "missing, 1 files in all"),
    (
      SHARD,
      lambda path: shutil.copy(path.with_name(path.name.replace("train", "test")), path),
      f"1 records, {INFO} says 2",
    ),
    *((name, _cut(150), "not readable as JSON") for name in (INFO, FEATURES, METADATA)),
    *((name, _cut(0), "not readable as JSON") for name in (INFO, FEATURES, METADATA)),
    *((name, Path.unlink, "missing; copy") for name in (FEATURES, METADATA)),
    *(
      (name, lambda path: path.write_text("[]"), "not an object in JSON")
      for name in (INFO, FEATURES, METADATA)
    ),
    (INFO, lambda path: path.write_text("{}"), "its file format is None, not array_record"),
    (INFO, _edit("array_record", "tfrecord"), "its file format is 'tfrecord'"),
    (INFO, _edit('"2"', '"x"'), "not what a build writes"),
    (INFO, _edit('"2"', '"-2"'), "not what a build writes"),
    (INFO, _edit('"2"', '"0"'), "not what a build writes"),
    (INFO, _edit('"1.0.0"', '"one"'), "not what a build writes"),
    (INFO, _edit("shardLengths", "lengths"), "not what a build writes"),
    (FEATURES, lambda path: path.write_text("{}"), "describes all features as something else"),
    (
      FEATURES,
      _edit("int16", "float32"),
      r"describes image as .*Tensor float32 .* have .*Tensor int16",
    ),
    (FEATURES, _edit('"label"', '"mask"'), "describes label as missing"),
    (METADATA, lambda path: path.write_text('{"labels": {"a": "1"}}'), "no label values by name"),
  ],
)
def test_damage_is_told_with_the_file(folder, name, damage, told):
  damage(folder / name)
  with pytest.raises(UserError, match=told) as refused:
    _read_all(folder)
  assert str(folder) in str(refused.value)
  assert "build it again" in str(refused.value)


def test_a_file_with_more_records_than_are_described_is_not_read_in_part(folder):
  """Else its last cases would be passed over without a word."""
  _edit('"2"', '"1"')(folder / INFO)
  with pytest.raises(UserError, match=f"{SHARD}: 2 records, {INFO} says 1"):
    _read_all(folder)


@pytest.mark.parametrize("class_name", ["evil_module.Features", "FeaturesDict"])
@pytest.mark.parametrize("at", ["whole", "part", "nested"])
def test_no_module_is_imported_because_a_data_folder_names_it(
  folder, tmp_path, monkeypatch, class_name, at
):
  """TFDS would import it: python -m puts the current folder first on the path."""
  (tmp_path / "evil_module.py").write_text("from pathlib import Path\nPath('touched').touch()\n")
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend("")
  path = folder / FEATURES
  content, evil = json.loads(path.read_text()), {"pythonClassName": "evil_module.Features"}
  if at == "whole":
    content["pythonClassName"] = f"evil_module.{class_name}"
  elif at == "part":
    content["featuresDict"]["features"]["id"]["pythonClassName"] = f"evil_module.{class_name}"
  else:
    content = {
      "pythonClassName": content["pythonClassName"],
      "jsonFeature": {"json": json.dumps({"id": {"type": "evil_module.Features", "content": {}}})},
      **({"featuresDict": {"features": {"id": evil}}} if class_name == "FeaturesDict" else {}),
    }
  path.write_text(json.dumps(content))
  with pytest.raises(UserError, match=FEATURES):
    _read_all(folder)
  assert not (tmp_path / "touched").exists()
  assert "evil_module" not in sys.modules


UNFIT_AFFINES = {
  "zeros": np.zeros((4, 4)),
  "NaN": np.full((4, 4), np.nan),
  "last row": np.diag([1, 1, 1, 2.0]),
  "spacing": np.diag([1e-5, 1, 1, 1]),
}


@pytest.fixture
def change_records(monkeypatch):
  """Makes records be read with other parts."""
  read = records.SplitRecords._read

  def change(**parts):
    monkeypatch.setattr(records.SplitRecords, "_read", lambda *asked: read(*asked) | parts)

  return change


def test_a_record_whose_image_and_label_differ_is_told(folder, change_records):
  change_records(image=np.zeros((2, 2, 2), np.int16), label=np.zeros((2, 2, 1), np.uint8))
  told = r"array_record-.*: record \d, phantom_0\d+, has an image of .2, 2, 2. and .* .2, 2, 1. vox"
  with pytest.raises(UserError, match=told):
    _read_all(folder)


@pytest.mark.parametrize("affine", UNFIT_AFFINES.values(), ids=UNFIT_AFFINES)
def test_a_record_that_is_on_no_grid_is_told_with_and_without_its_voxels(
  folder, change_records, affine
):
  change_records(affine=affine)
  told = r"array_record-.*: record \d, phantom_0\d+, places its voxels on no grid .*; copy the data"
  with pytest.raises(UserError, match=told):
    _read_all(folder)
  dataset = RecordDataset(open_records(TINY, folder.parents[2]))
  with pytest.raises(UserError, match=told):
    dataset.grid(dataset.ids[0])


def test_other_folders_beside_the_versions_are_none(phantoms, tmp_path):
  shutil.copytree(phantoms / TINY, tmp_path / TINY)
  for name in ("a.b.c", "1.0.0.incomplete_x", "1.9.9.old"):
    shutil.copytree(tmp_path / TINY / "1.0.0", tmp_path / TINY / name)
  assert records.find_built_version(TINY, tmp_path).name == "1.0.0"
  shutil.copytree(tmp_path / TINY / "1.0.0", tmp_path / TINY / "1.10.0")
  shutil.copytree(tmp_path / TINY / "1.0.0", tmp_path / TINY / "1.9.0")
  assert records.find_built_version(TINY, tmp_path).name == "1.10.0"
