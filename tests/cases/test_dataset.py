import json

import nibabel as nib
import numpy as np
import pytest

from attn_unet_jax.cases.dataset import FolderDataset, open_dataset
from attn_unet_jax.cases.options import DataOptions
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.judge import Judge
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


def test_records_that_were_not_built_name_the_command(config, tmp_path):
  config = with_keys(config, {"data.dir": str(tmp_path)})
  with pytest.raises(UserError, match=r"tfds_pancreas\.build --dataset=phantom_ct/tiny"):
    open_dataset(config.data)


def spoil(folder, name, change):
  """Rewrites an image of the folder by a function of its values."""
  path = folder / "imagesTr" / f"{name}.nii.gz"
  image = nib.load(path)
  nib.Nifti1Image(change(np.asanyarray(image.dataobj).copy()), image.affine).to_filename(path)


def test_values_that_are_no_hu_are_refused_or_accepted_by_name_and_said_once(folder, caplog):
  spoil(folder, "a", lambda hu: (hu.astype(np.int32) + 3024).astype(np.uint16))
  with pytest.raises(UserError, match=r"a\.nii\.gz: values from .*--accept=hounsfield$"):
    FolderDataset(folder).load("a")
  dataset = open_dataset(DataOptions(folder=str(folder), accept="hounsfield"))
  for _ in range(2):
    assert dataset.load("a").image.array.max() > 2000
  (line,) = dataset.judged.accepted
  assert line.startswith("accepted (hounsfield): ")
  assert caplog.text.count("accepted (hounsfield)") == 1


def test_a_header_that_contradicts_itself_is_refused_before_any_voxel_is_read(folder):
  path = folder / "imagesTr" / "a.nii.gz"
  image = nib.load(path)
  image.header.set_qform(np.diag([8.0, 8, 10, 1]), 1)
  nib.Nifti1Image(np.asanyarray(image.dataobj).copy(), None, image.header).to_filename(path)
  with pytest.raises(UserError, match=r"a\.nii\.gz: sform and qform .*--accept=geometry$"):
    FolderDataset(folder).grid("a")


@pytest.mark.parametrize(("normalisation", "said"), [("window", False), ("zscore", True)])
def test_clipped_values_matter_only_where_the_window_does_not_clip(folder, normalisation, said):
  spoil(folder, "a", lambda hu: np.clip(hu, -200, 300))
  dataset = open_dataset(DataOptions(folder=str(folder), normalisation=normalisation))
  lines = dataset.judged.judge.judge_scan(dataset.load("a").image, "a")
  assert bool(lines) == said


def test_phantoms_pass_in_silence(phantoms, caplog):
  dataset = open_dataset(DataOptions(dataset="phantom_ct/tiny", dir=str(phantoms)))
  for case_id in dataset.ids:
    image = dataset.load(case_id).image
    assert Judge().judge_scan(image, case_id) == []
  assert caplog.text == ""
