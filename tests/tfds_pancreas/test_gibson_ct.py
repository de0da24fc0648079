"""The labels of Gibson et al. on DICOM and NIfTI scans, from small files of that layout."""

import json
import re

import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from tests.fake_nifti import assert_record_holds, draw_fake_case, write_image, write_label
from tests.fake_pancreas_ct import SPACING, write_case
from tests.fake_pancreas_ct import write_label as write_untrusted
from tfds_pancreas.build_dataset import build_dataset
from tfds_pancreas.records import REPORT_FILE, open_records

NAME = "gibson_ct/native"
EIGHT = (1, 3, 4, 5, 6, 7, 11, 14)
WAYS = {  # how the label's file is stored, and what the report then says
  1: (None, "the label's header"),
  2: ((slice(None),), "figures: rows down, slices as instance numbers"),
  3: ((slice(None), slice(None, None, -1)), "figures: rows up, slices as instance numbers"),
  4: (
    (slice(None), slice(None, None, -1), slice(None, None, -1)),
    "figures: rows up, slices against instance numbers",
  ),
}


def _make_case(number, rising=True):
  case = draw_fake_case(number, (*EIGHT, 2, 8))  # two organs that the labels of Pancreas-CT lack
  if not rising:
    case.instances.reverse()
  return case


def _write_tcia_case(root, case, way):
  write_case(root, case, "nbia")  # with the collection's own label, which is not to be taken
  path = root / "label_tcia_multiorgan" / f"label{case.number:04d}.nii.gz"
  if way is None:
    write_label(path, case, "LPS")
  else:
    write_untrusted(path, case.to_stored_label()[way], SPACING)


def _keep_eight_organs(case):
  return np.where(np.isin(case.label, EIGHT), case.label, 0)


@pytest.fixture(scope="module")
def cases():
  return {number: _make_case(number, rising=number % 2 == 0) for number in (*WAYS, 61)}


@pytest.fixture(scope="module")
def built(cases, tmp_path_factory):
  root, data = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("data")
  for number, (way, _) in WAYS.items():
    _write_tcia_case(root, cases[number], way)
  btcv = root / "label_btcv_multiorgan"
  write_label(btcv / "label0061.nii.gz", cases[61])
  write_image(root / "RawData" / "Testing" / "img" / "img0061.nii.gz", cases[61])
  write_image(root / "RawData" / "Training" / "img" / "img0001.nii.gz", cases[1])  # unlabelled
  write_untrusted(root / "label_tcia_multiorgan" / "label0025.nii.gz", cases[2].label, SPACING)
  (root / "cropping.csv").write_text(
    "id,publisher,dataset,original_id,extent_inf,extent_sup\n1,TCIA,x,0002,5,9\n2,Synapse,y,0061,1,7\n"
  )
  folder = build_dataset(NAME, data, manual_dir=root)
  return open_records(NAME, data), json.loads((folder / REPORT_FILE).read_text())


def test_every_voxel_and_organ_is_where_it_belongs(built, cases):
  records, _ = built
  assert sorted(records.labels.values()) == list(EIGHT)
  names = [f"PANCREAS_{number:04d}" for number in WAYS] + ["img0061"]
  assert records.splits["train"].case_ids == names
  for record in records.splits["train"]:
    case = cases[int(record["id"][-4:])]
    assert_record_holds(record, case, _keep_eight_organs(case))


def test_the_report_says_how_labels_were_placed_and_what_the_table_has(built):
  figures = built[1]["built"]
  for number, (_, words) in WAYS.items():
    assert figures[f"PANCREAS_{number:04d}"]["placed_by"] == words
    order = "rising" if number % 2 == 0 else "falling"
    assert figures[f"PANCREAS_{number:04d}"]["instance_numbers"] == order
  assert figures["PANCREAS_0002"]["cropping"]["extent_sup"] == "9"
  assert figures["img0061"]["cropping"]["extent_inf"] == "1"
  assert "cropping" not in figures["PANCREAS_0001"]
  assert list(built[1]["excluded"]) == ["PANCREAS_0025", "PANCREAS_0070"]


def test_bad_cases_are_all_named(tmp_path):
  _write_tcia_case(tmp_path, _make_case(1), (slice(None),))
  _write_tcia_case(tmp_path, _make_case(2), (slice(None, None, -1),))  # left is right
  lost = _make_case(3)
  write_untrusted(tmp_path / "label_tcia_multiorgan" / "label0003.nii.gz", lost.label, SPACING)
  everywhere = _make_case(4)
  everywhere.label[:] = 6
  _write_tcia_case(tmp_path, everywhere, (slice(None),))
  other = _make_case(5)
  other.label[other.label > 0] = 2
  _write_tcia_case(tmp_path, other, (slice(None),))
  trusted = _make_case(6)
  _write_tcia_case(tmp_path, trusted, None)
  trusted.label = trusted.label[:, ::-1]
  write_label(tmp_path / "label_tcia_multiorgan" / "label0006.nii.gz", trusted, "LPS")
  with pytest.raises(UserError) as caught:
    build_dataset(NAME, tmp_path / "data", manual_dir=tmp_path)
  complaint = str(caught.value)
  for words in (
    "5 of 6 cases cannot be used",
    r"PANCREAS_0006: flipped along y the label fits better",
    r"PANCREAS_0002: mirrored left to right the label fits better",
    r"PANCREAS_0003: no scan of that name for .*label0003\.nii\.gz",
    r"PANCREAS_0004: how the label lies on its scan cannot be told",
    r"PANCREAS_0005: .*label0005\.nii\.gz: the label is empty",
  ):
    assert re.search(words, complaint), words


def test_files_of_other_collections_give_a_check_list(tmp_path):
  write_case(tmp_path, _make_case(1), "nbia")
  with pytest.raises(UserError, match=r"no labels of Gibson et al. found.*zenodo.*\(3\) those of"):
    build_dataset(NAME, tmp_path / "data", manual_dir=tmp_path)


def test_a_table_of_another_kind_is_refused(tmp_path):
  _write_tcia_case(tmp_path, _make_case(1), None)
  (tmp_path / "cropping.csv").write_text("a,b\n1,2\n")
  with pytest.raises(UserError, match=r"cropping\.csv: no table with the columns publisher"):
    build_dataset(NAME, tmp_path / "data", manual_dir=tmp_path)
