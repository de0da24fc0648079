"""A plain folder from files to records: the same cases that training reads from the files."""

import json
import re

import nibabel as nib
import numpy as np
import pytest

from attn_unet_jax.cases.dataset import FolderDataset
from attn_unet_jax.labels import parse_mapping
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.orientation import to_canonical
from tests.conftest import run_command
from tests.fake_nifti import (
  assert_record_holds,
  draw_fake_case,
  write_dataset_json,
  write_image,
  write_label,
)
from tfds_pancreas.build_dataset import build_dataset
from tfds_pancreas.folder_ct.folder_ct_dataset_builder import make_config
from tfds_pancreas.records import open_records


def _add_case(root, name, case, axes="LAS"):
  write_image(root / "imagesTr" / f"{name}.nii", case, axes)
  write_label(root / "labelsTr" / f"{name}.nii.gz", case, "RSP")


def _make_empty_case(number):
  case = draw_fake_case(number, (1,))
  case.label[:] = 0
  return case


def test_records_hold_what_the_folder_does(tmp_path):
  root = tmp_path / "files"
  cases = {
    "b": draw_fake_case(1, (4, 200)),
    "a": draw_fake_case(2, (4,)),
    "healthy": _make_empty_case(3),
  }
  for name, case in cases.items():
    _add_case(root, name, case, "SAL" if name == "b" else "RAS")
  write_dataset_json(root, {"0": "background", "4": "duct", "200": "pancreas"})
  build_dataset("folder_ct/native_mine", tmp_path, manual_dir=root)
  records, folder = open_records("folder_ct/native_mine", tmp_path), FolderDataset(root)
  assert records.labels == folder.label_names
  assert tuple(records.splits["train"].case_ids) == folder.ids
  for record in records.splits["train"]:
    assert_record_holds(record, cases[record["id"]], cases[record["id"]].label)
    case = folder.load(record["id"])
    np.testing.assert_array_equal(record["label"], to_canonical(case.label).array)
    np.testing.assert_array_equal(record["affine"], to_canonical(case.image).affine)


def test_without_names_1_is_pancreas_and_other_values_are_refused(tmp_path):
  root = tmp_path / "files"
  _add_case(root, "a", draw_fake_case(1, (1,)))
  build_dataset("folder_ct/native", tmp_path, manual_dir=root)
  assert open_records("folder_ct/native", tmp_path).labels == {"pancreas": 1}
  _add_case(root, "b", draw_fake_case(2, (1, 2)))
  with pytest.raises(UserError, match=r"b: label values \[2\] have no names; named are 1 pancreas"):
    build_dataset("folder_ct/iso8mm", tmp_path, manual_dir=root)


def test_names_after_a_channel_are_explained_and_what_nnunet_ignores_is_unlabelled(tmp_path):
  root = tmp_path / "files"
  case = draw_fake_case(1, (1, 2))
  write_dataset_json(root, {"background": 0, "pancreas": 1, "ignore": 2})
  write_image(root / "imagesTr" / "a_0000.nii", case)
  write_label(root / "labelsTr" / "a.nii", case)
  with pytest.raises(UserError, match=r"a_0000: no label.*_0000 is nnU-Net's.*rename a_0000 to a,"):
    build_dataset("folder_ct/native", tmp_path, manual_dir=root)
  (root / "imagesTr" / "a_0000.nii").rename(root / "imagesTr" / "a.nii")
  build_dataset("folder_ct/native", tmp_path, manual_dir=root)
  names = open_records("folder_ct/native", tmp_path).labels
  assert parse_mapping("pancreas", names).unlabelled == {2}


def test_a_collection_that_is_there_is_not_mistaken_for_another(tmp_path):
  _add_case(tmp_path / "files", "a", draw_fake_case(1, (1,)))
  build_dataset("folder_ct/native", tmp_path, manual_dir=tmp_path / "files")
  flags = (f"--data_dir={tmp_path}", f"--manual_dir={tmp_path / 'others'}")
  done = run_command("tfds_pancreas.build", "--dataset=folder_ct/native", *flags)
  assert done.returncode == 0, done.stderr
  assert "folder_ct/native: already there, --manual_dir is not looked at" in done.stdout


def test_what_records_cannot_hold_and_no_files_are_refused(tmp_path):
  write_dataset_json(tmp_path, {"300": "pancreas"})
  with pytest.raises(UserError, match=r"label values \{'pancreas': 300\} are not within 0 to 255"):
    build_dataset("folder_ct/native", tmp_path / "data", manual_dir=tmp_path)
  (tmp_path / "dataset.json").write_text("{}")
  with pytest.raises(UserError, match=re.escape("no imagesTr/NAME.nii.gz with labelsTr")):
    build_dataset("folder_ct/native", tmp_path / "data", manual_dir=tmp_path)


def test_names_of_configs():
  config = make_config("iso1.5mm_two_centres")
  assert (config.spacing_mm, config.collection) == (1.5, "two_centres")
  for name in ("native_", "iso2_mine", "_mine", "native_../x", "native_a b"):
    with pytest.raises(ValueError, match=r"collection after the _|a grid is called"):
      make_config(name)


def test_values_that_are_no_hu_stop_a_build_or_stand_in_its_report(tmp_path, capsys):
  root = tmp_path / "files"
  for number, name in enumerate(("a", "b")):
    case = draw_fake_case(number, (1,))
    case.image = case.image + np.int16(1024)
    _add_case(root, name, case)
  with pytest.raises(UserError, match=r"2 of 2 cases .* a: .*subtract 1024; .*--accept=hounsfield"):
    build_dataset("folder_ct/native", tmp_path, manual_dir=root)
  accept = frozenset({"hounsfield"})
  folder = build_dataset("folder_ct/native", tmp_path, manual_dir=root, accept=accept)
  report = json.loads((folder / "build_report.json").read_text())
  assert report["accepted"] == ["hounsfield"]
  (doubt,) = report["built"]["a"]["doubts"]
  assert doubt.startswith("accepted (hounsfield): ")
  out = capsys.readouterr().out
  assert out.count("accepted (hounsfield)") == 1
  assert "(and 1 more, in build_report.json)" in out


def test_an_image_whose_header_contradicts_itself_is_no_case(tmp_path):
  root = tmp_path / "files"
  _add_case(root, "a", draw_fake_case(1, (1,)))
  image = nib.load(root / "imagesTr" / "a.nii")
  image.header.set_qform(np.diag([8.0, 8, 10, 1]), 1)
  nib.Nifti1Image(np.asanyarray(image.dataobj).copy(), None, image.header).to_filename(
    root / "imagesTr" / "a.nii"
  )
  with pytest.raises(UserError, match=r"a\.nii: sform and qform put voxels .*--accept=geometry"):
    build_dataset("folder_ct/native", tmp_path, manual_dir=root)
