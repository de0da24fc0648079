"""BTCV from files to records, on a small folder of its layout."""

import numpy as np
import pytest

from attn_unet_jax.cases.dataset import open_dataset
from attn_unet_jax.labels import parse_mapping
from attn_unet_jax.runtime.errors import UserError
from tests.configs import with_keys
from tests.fake_nifti import assert_record_holds, draw_fake_case, write_image, write_label
from tfds_pancreas.build_dataset import build_dataset
from tfds_pancreas.records import open_records

CASES = {
  "img0001": draw_fake_case(1, tuple(range(1, 14))),
  "img0021": draw_fake_case(21, (1, 11, 13)),
}


def _training_folder(root):
  return root / "Abdomen" / "RawData" / "Training"


def _write_collection(root):
  for name, case in CASES.items():
    write_image(_training_folder(root) / "img" / f"{name}.nii.gz", case)
    label = name.replace("img", "label")
    write_label(_training_folder(root) / "label" / f"{label}.nii.gz", case)
  write_image(
    _training_folder(root).parent / "Testing" / "img" / "img0061.nii.gz", CASES["img0001"]
  )


def test_every_voxel_and_organ_is_where_it_belongs(tmp_path, config):
  _write_collection(tmp_path / "files")
  build_dataset("btcv/native", tmp_path, manual_dir=tmp_path / "files")
  split = open_records("btcv/native", tmp_path).splits["train"]
  assert split.case_ids == sorted(CASES)
  for record in split:
    assert_record_holds(record, CASES[record["id"]], CASES[record["id"]].label)
  config = with_keys(config, {"data.dataset": "btcv/native", "data.dir": str(tmp_path)})
  dataset = open_dataset(config.data)
  mapping = parse_mapping("pancreas,spleen", dataset.label_names)
  label = dataset.load("img0001").label.array
  np.testing.assert_array_equal(mapping.apply(label, ""), (label == 11) + 2 * (label == 1))


def test_a_scan_without_its_label_is_named(tmp_path):
  _write_collection(tmp_path)
  (_training_folder(tmp_path) / "label" / "label0021.nii.gz").unlink()
  with pytest.raises(UserError, match=r"1 of 2 cases.*img0021: no label of this name"):
    build_dataset("btcv/native", tmp_path / "data", manual_dir=tmp_path)


def test_a_case_that_is_there_twice_and_a_folder_without_any_are_refused(tmp_path):
  _write_collection(tmp_path / "a")
  with pytest.raises(UserError, match=r"no Training/img and Training/label. BTCV must be"):
    build_dataset(
      "btcv/native", tmp_path / "data", manual_dir=tmp_path / "a/Abdomen/RawData/Testing"
    )
  write_image(tmp_path / "Training" / "img" / "img0001.nii", CASES["img0001"])
  with pytest.raises(UserError, match="is the same case; remove one of them"):
    build_dataset("btcv/native", tmp_path / "data", manual_dir=tmp_path)
