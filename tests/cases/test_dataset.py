import json
import os
import shutil

import numpy as np
import pytest

from attn_unet_jax.cases.dataset import FolderDataset, open_dataset
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.volume import Volume
from tests.configs import with_keys
from tfds_pancreas.records import open_records


@pytest.fixture
def folder(tmp_path):
  rng = np.random.default_rng(0)
  for name in ("b", "a"):
    image = Volume(rng.integers(-1000, 1000, (5, 6, 7)).astype(np.int16), np.eye(4))
    label = Volume((image.array > 900).astype(np.uint8), np.eye(4))
    write_nifti(tmp_path / "imagesTr" / f"{name}.nii.gz", image)
    write_nifti(tmp_path / "labelsTr" / f"{name}.nii.gz", label)
  return tmp_path


def test_a_folder_is_read_sorted_and_hidden_files_are_left_out(folder):
  (folder / "imagesTr" / "._a.nii.gz").write_bytes(b"")
  dataset = FolderDataset(folder)
  assert dataset.ids == ("a", "b")
  assert dataset.parts is None
  case = dataset.load("a")
  np.testing.assert_array_equal(case.label.array, case.image.array > 900)


def test_a_label_stored_on_other_axes_is_turned_to_its_image(folder):
  before = FolderDataset(folder).load("a")
  turned = np.diag([-1.0, 1, 1, 1])
  turned[0, 3] = 4
  write_nifti(folder / "labelsTr" / "a.nii.gz", Volume(before.label.array[::-1], turned))
  after = FolderDataset(folder).load("a")
  np.testing.assert_array_equal(after.label.array, before.label.array)
  np.testing.assert_array_equal(after.label.affine, after.image.affine)


@pytest.mark.parametrize(
  "labels", [{"0": "background", "1": "pancreas"}, {"background": 0, "pancreas": 1}]
)
def test_names_come_from_dataset_json_in_both_directions(folder, labels):
  (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
  assert FolderDataset(folder).label_names == {"background": 0, "pancreas": 1}


def test_missing_data_says_what_to_put_where(tmp_path):
  with pytest.raises(UserError, match=r"imagesTr/NAME\.nii\.gz and their labels into"):
    FolderDataset(tmp_path / "nowhere")


def test_two_files_of_one_name_are_refused(folder):
  (folder / "imagesTr" / "a.nii").write_bytes(b"")
  with pytest.raises(UserError, match=r"a\.nii\.gz: a\.nii has the same name"):
    FolderDataset(folder)


def test_an_image_without_label_is_named(folder):
  (folder / "labelsTr" / "b.nii.gz").unlink()
  with pytest.raises(UserError, match=r"only one of imagesTr and labelsTr: \['b'\]"):
    FolderDataset(folder)


def test_images_called_after_a_channel_are_explained(folder):
  for name in "ab":
    (folder / "imagesTr" / f"{name}.nii.gz").rename(folder / "imagesTr" / f"{name}_0000.nii.gz")
  with pytest.raises(UserError, match=r"4 names are in only one.*_0000 is nnU-Net's.*a_0000 to a,"):
    FolderDataset(folder)


def test_label_of_another_shape_nan_and_constant_images_are_refused(folder):
  write_nifti(folder / "labelsTr" / "a.nii.gz", Volume(np.zeros((5, 6, 8), np.uint8), np.eye(4)))
  with pytest.raises(UserError, match=r"a\.nii\.gz.*shapes"):
    FolderDataset(folder).load("a")
  bad = np.full((5, 6, 7), np.nan, np.float32)
  write_nifti(folder / "imagesTr" / "b.nii.gz", Volume(bad, np.eye(4)))
  with pytest.raises(UserError, match="NaN"):
    FolderDataset(folder).load("b")
  write_nifti(folder / "imagesTr" / "b.nii.gz", Volume(np.zeros((5, 6, 7), np.int16), np.eye(4)))
  with pytest.raises(UserError, match="constant"):
    FolderDataset(folder).load("b")


def test_a_broken_dataset_json_is_refused(folder):
  (folder / "dataset.json").write_text("{")
  with pytest.raises(UserError, match=r"dataset\.json"):
    FolderDataset(folder)


def test_records_have_their_own_parts_and_names(config, phantoms):
  config = with_keys(config, {"data.dir": str(phantoms)})
  dataset = open_dataset(config.data)
  splits = open_records(config.data.dataset, str(phantoms)).splits
  own = {"training": "train", "validation": "validation", "test": "test"}
  assert dataset.parts == {part: splits[split].case_ids for part, split in own.items()}
  assert set().union(*dataset.parts.values()) == set(dataset.ids)
  case = dataset.load(dataset.parts["test"][0])
  assert case.image.array.dtype == np.int16
  assert (case.label.array == dataset.label_names["pancreas"]).any()


def test_records_that_are_built_again_are_others(config, phantoms, tmp_path):
  config = with_keys(config, {"data.dir": str(shutil.copytree(phantoms, tmp_path / "data"))})
  dataset = open_dataset(config.data)
  one, other = dataset.ids[:2]
  before = dataset.fingerprint(one)
  assert before == open_dataset(config.data).fingerprint(one) != dataset.fingerprint(other)
  (info,) = (tmp_path / "data").rglob("dataset_info.json")
  os.utime(info, (1, 1))
  assert dataset.fingerprint(one) != before


def test_records_that_were_not_built_name_the_command(config, tmp_path):
  config = with_keys(config, {"data.dir": str(tmp_path)})
  with pytest.raises(UserError, match=r"tfds_pancreas\.build --dataset=phantom_ct/tiny"):
    open_dataset(config.data)
