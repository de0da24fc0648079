"""Decathlon Task07 from files to records, on a small folder of its layout."""

import codecs
import json
import re

import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from tests.fake_nifti import (
  assert_record_holds,
  draw_fake_case,
  write_dataset_json,
  write_image,
  write_label,
)
from tfds_pancreas.build_dataset import build_dataset
from tfds_pancreas.decathlon_pancreas.decathlon_pancreas_dataset_builder import (
  Builder,
  make_config,
)
from tfds_pancreas.records import REPORT_FILE, open_records

NAMES = {"0": "background", "1": "pancreas", "2": "cancer"}
CASES = {"pancreas_001": draw_fake_case(1, (1, 2)), "pancreas_010": draw_fake_case(10, (1, 1, 2))}


def _add_case(task, name, case, **label):
  write_image(task / "imagesTr" / f"{name}.nii.gz", case, "RAS")
  write_label(task / "labelsTr" / f"{name}.nii.gz", case, "RAS", **label)
  for folder in ("imagesTr", "labelsTr"):
    (task / folder / f"._{name}.nii.gz").write_bytes(b"\0\5\26\7")  # as macOS packs


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  root = tmp_path_factory.mktemp("files")
  task = root / "Task07_Pancreas"
  write_dataset_json(task, NAMES, (*CASES, "pancreas_004"))
  for name, case in CASES.items():
    _add_case(task, name, case)
  write_image(task / "imagesTs" / "pancreas_002.nii.gz", draw_fake_case(2, (1,)))
  return root


def test_tumours_are_pancreas_by_default(files, tmp_path):
  folder = build_dataset("decathlon_pancreas/native", tmp_path, manual_dir=files)
  records = open_records("decathlon_pancreas/native", tmp_path)
  assert records.labels == {"pancreas": 1}
  assert records.splits["train"].case_ids == sorted(CASES)
  for record in records.splits["train"]:
    case = CASES[record["id"]]
    assert_record_holds(record, case, case.label > 0)
  report = json.loads((folder / REPORT_FILE).read_text())
  figures = report["built"]["pancreas_001"]
  inside = CASES["pancreas_001"].image[CASES["pancreas_001"].label > 0]
  assert figures["labels"] == {
    "pancreas": {"voxels": len(inside), "mean_hu": pytest.approx(inside.mean(), abs=0.06)}
  }
  assert figures["orientation"] == "RAS"
  assert "doubt" not in figures
  assert report["absent"] == ["pancreas_004"]


def test_a_suffix_keeps_them_apart(files, tmp_path):
  name = "decathlon_pancreas/native_tumour"
  build_dataset(name, tmp_path, manual_dir=files / "Task07_Pancreas")
  records = open_records(name, tmp_path)
  assert records.labels == {"pancreas": 1, "tumour": 2}
  for record in records.splits["train"]:
    assert_record_holds(record, CASES[record["id"]], CASES[record["id"]].label)


def test_names_of_configs():
  config = make_config("iso1.5mm_tumour")
  assert (config.spacing_mm, config.tumour) == (1.5, True)
  assert not make_config("native").tumour
  with pytest.raises(ValueError, match="a grid is called native"):
    make_config("native_cyst")


def test_bad_cases_are_all_named(tmp_path):
  write_dataset_json(tmp_path, NAMES)
  _add_case(tmp_path, "good", CASES["pancreas_001"])
  _add_case(tmp_path, "value", draw_fake_case(2, (1, 3)))
  _add_case(tmp_path, "shifted", CASES["pancreas_001"], shift_mm=5.0)
  empty = draw_fake_case(3, (1,))
  empty.label[:] = 0
  _add_case(tmp_path, "empty", empty)
  write_image(tmp_path / "imagesTr" / "alone.nii.gz", empty)
  with pytest.raises(UserError) as caught:
    build_dataset("decathlon_pancreas/native", tmp_path / "data", manual_dir=tmp_path)
  complaint = str(caught.value)
  for words in (
    "4 of 5 cases cannot be used",
    r"value: label values \[3\] have no names; named are 1 pancreas",
    r"shifted: .*shifted\.nii\.gz: voxels up to 5\.000 mm apart",
    "empty: the label is empty",
    r"alone: no label of this name, there is only .*alone\.nii\.gz",
  ):
    assert re.search(words, complaint)
  assert "good:" not in complaint
  assert not list((tmp_path / "data").glob("decathlon_pancreas/native/1.*"))


def test_a_dataset_json_may_begin_with_a_byte_order_mark(tmp_path):
  write_dataset_json(tmp_path, NAMES, ("pancreas_004",))
  file = tmp_path / "dataset.json"
  file.write_bytes(codecs.BOM_UTF8 + file.read_bytes())
  (tmp_path / "imagesTr").mkdir()
  (tmp_path / "imagesTr" / "pancreas_001.nii.gz").write_bytes(b"")
  builder = Builder(config="native", data_dir=tmp_path / "data")
  assert [case.id for case in builder.find_cases(tmp_path)["train"]] == ["pancreas_001"]
  assert builder.collection_ids == ["pancreas_004"]


def test_another_task_is_refused(tmp_path):
  write_dataset_json(tmp_path, {"0": "background", "1": "liver", "2": "cancer"})
  with pytest.raises(UserError, match=r"its labels are .*'liver': 1.*those of Task07 are"):
    build_dataset("decathlon_pancreas/native", tmp_path / "data", manual_dir=tmp_path)


def test_a_folder_without_or_with_two_tasks_is_refused(tmp_path):
  (tmp_path / "notes.txt").write_text("")
  with pytest.raises(UserError, match=r"0 folders with a dataset\.json\. Task07_Pancreas\.tar"):
    build_dataset("decathlon_pancreas/native", tmp_path / "data", manual_dir=tmp_path)
  for name in ("a", "b"):
    write_dataset_json(tmp_path / name, NAMES)
  with pytest.raises(UserError, match=r"2 folders .*a, .*b; name one of them"):
    build_dataset("decathlon_pancreas/native", tmp_path / "data", manual_dir=tmp_path)


def test_the_voxels_of_both_values_were_there_to_be_told_apart():
  assert all(set(np.unique(case.label)) == {0, 1, 2} for case in CASES.values())
