"""Pancreas-CT from files to records, on small fakes of it that are real DICOM and NIfTI."""

import json
import logging
import re
import shutil

import numpy as np
import pytest
from scipy import ndimage

from attn_unet_jax.runtime.errors import UserError
from tests.conftest import run_command
from tests.fake_pancreas_ct import (
  LAYOUTS,
  PATIENT,
  SPACING,
  FakeCase,
  label_path,
  write_case,
  write_label,
)
from tfds_pancreas.build_dataset import build_dataset
from tfds_pancreas.records import REPORT_FILE, find_built_version, open_records

NATIVE = "pancreas_ct/native"


def good_cases():
  """Returns cases of both orders of instances, with and without useful label headers."""
  return [
    FakeCase(1),
    FakeCase(2, rising=False, slices=9),
    FakeCase(3, rising=False, slices=10, label_mm=SPACING),
    FakeCase(25),
  ]


@pytest.fixture(scope="module", params=LAYOUTS)
def built(request, tmp_path_factory):
  """Builds a data set from each layout."""
  root, data = tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("data")
  for case in good_cases():
    write_case(root, case, request.param)
  build_dataset(NATIVE, data, manual_dir=root)
  return root, data


def test_every_voxel_and_label_is_where_it_belongs(built):
  records = open_records(NATIVE, built[1])
  assert records.labels == {"pancreas": 1}
  split = records.splits["train"]
  expected = good_cases()[:3]
  assert split.case_ids == [case.id for case in expected]
  for record, case in zip(split, expected, strict=True):
    np.testing.assert_array_equal(record["image"], case.image)
    np.testing.assert_array_equal(record["label"], case.label)
    np.testing.assert_allclose(record["affine"], case.affine, atol=1e-6)


def test_the_report_has_figures_reasons_and_pictures(built):
  folder = find_built_version(NATIVE, built[1])
  report = json.loads((folder / REPORT_FILE).read_text())
  figures = report["built"]["PANCREAS_0002"]
  case = good_cases()[1]
  under = case.image[case.label == 1]
  assert figures["label_voxels"] == 8 * 8 * 3 - 1
  assert figures["mean_hu"] == pytest.approx(under.mean(), abs=0.06)
  assert figures["sd_hu"] == pytest.approx(under.std(), abs=0.06)
  assert figures["spacing_mm"] == list(SPACING)
  assert figures["tag_slice_distance_mm"] == 0.33
  assert max(figures["flip_scores"], key=figures["flip_scores"].get) == "none"
  assert report["left_out"] == {}
  assert "PANCREAS_0002 again" in report["excluded"]["PANCREAS_0025"]
  assert len(report["absent"]) == 82 - 5
  assert [name for name in report["contact_sheets"] if (folder / name).is_file()] == [
    "contact_sheet_1.png"
  ]


def test_no_patient_tag_reaches_any_file_of_the_data_set(built):
  contents = [p.read_bytes() for p in built[1].rglob("*") if p.is_file()]
  assert len(contents) > 5
  for value in PATIENT.values():
    assert not any(value.encode() in content for content in contents)
  for record in open_records(NATIVE, built[1]).splits["train"]:  # the files are compressed
    assert sorted(record) == ["affine", "id", "image", "label"]
    assert re.fullmatch(r"PANCREAS_\d{4}", record["id"])
  pictures = [content for content in contents if content.startswith(b"\x89PNG")]
  assert pictures
  assert not any(text in picture for picture in pictures for text in (b"tEXt", b"zTXt", b"iTXt"))


def test_no_patient_tag_reaches_the_screen_or_the_log(tmp_path, caplog, capfd):
  for case in good_cases()[:2]:
    write_case(tmp_path / "files", case, "flat")
  next((tmp_path / "files" / "scans").iterdir()).write_bytes(b"")
  with caplog.at_level(logging.DEBUG), pytest.raises(UserError) as stopped:
    build_dataset(NATIVE, tmp_path / "data", manual_dir=tmp_path / "files")
  printed = capfd.readouterr()
  for text in (caplog.text, printed.out, printed.err, str(stopped.value)):
    assert not [value for value in PATIENT.values() if value in text]


def test_phantoms_written_as_pancreas_ct_come_back_voxel_for_voxel(phantoms, tmp_path):
  records = open_records("phantom_ct/tiny", phantoms)
  cases = []
  for number, record in enumerate(records.splits["train"][:3], start=1):
    case = FakeCase(number, rising=number != 2, slices=record["image"].shape[2])
    case.image = record["image"]
    case.label = (record["label"] == records.labels["pancreas"]).astype(np.uint8)
    write_case(tmp_path / "files", case, "nbia")
    cases.append(case)
  build_dataset(NATIVE, tmp_path / "data", manual_dir=tmp_path / "files")
  split = open_records(NATIVE, tmp_path / "data").splits["train"]
  for record, case in zip(split, cases, strict=True):
    np.testing.assert_array_equal(record["image"], case.image)
    np.testing.assert_array_equal(record["label"], case.label)
    np.testing.assert_allclose(record["affine"], case.affine, atol=1e-6)


def _empty_file(files):
  files[3].write_bytes(b"")


def _cut_before_the_size(files):
  data = files[3].read_bytes()
  files[3].write_bytes(data[: data.index(b"PANCREAS_0002") + 30])


@pytest.mark.parametrize(
  ("harm", "named"),
  [(_empty_file, "files of no known case"), (_cut_before_the_size, "PANCREAS_0002")],
)
def test_a_damaged_file_among_flat_ones_is_named_and_spoils_its_case_alone(tmp_path, harm, named):
  root, data = tmp_path / "files", tmp_path / "data"
  files = {case.id: write_case(root, case, "flat") for case in good_cases()[:3]}
  harm(files["PANCREAS_0002"])
  with pytest.raises(UserError, match=rf"\| {named}: .*{files['PANCREAS_0002'][3].name}: "):
    build_dataset(NATIVE, data, manual_dir=root)
  folder = build_dataset(NATIVE, data, manual_dir=root, skip_bad_cases=True)
  left_out = json.loads((folder / REPORT_FILE).read_text())["left_out"]
  assert sorted(left_out) == sorted({"PANCREAS_0002", named})
  problems = left_out["PANCREAS_0002"]["problems"]
  assert ("1 missing slices" in problems[0]) == (named != "PANCREAS_0002")
  assert open_records(NATIVE, data).splits["train"].case_ids == ["PANCREAS_0001", "PANCREAS_0003"]


def test_82_case_configs_keep_the_duplicates_and_other_spacings_are_made(tmp_path):
  for case in good_cases()[2:]:
    write_case(tmp_path / "files", case, "nbia")
  name = "pancreas_ct/iso1.5mm_82"
  build_dataset(name, tmp_path / "data", manual_dir=tmp_path / "files")
  split = open_records(name, tmp_path / "data").splits["train"]
  assert split.case_ids == ["PANCREAS_0003", "PANCREAS_0025"]
  for record, case in zip(split, good_cases()[2:], strict=True):
    _assert_resampled(record, case, 1.5)


def _assert_resampled(record, case, spacing):
  """Compares with SciPy at the places that the record's own affine names."""
  np.testing.assert_allclose(np.diag(record["affine"])[:3], spacing)
  shape = record["image"].shape
  assert record["label"].shape == shape
  places = np.linalg.inv(case.affine) @ record["affine"]
  at = places[:3, :3] @ np.indices(shape).reshape(3, -1) + places[:3, 3:]
  linear = ndimage.map_coordinates(case.image.astype(np.float64), at, order=1, mode="nearest")
  np.testing.assert_allclose(record["image"].ravel(), linear, atol=0.51)
  nearest = case.label[
    tuple(np.clip(np.rint(at), 0, np.array([case.label.shape]).T - 1).astype(int))
  ]
  tie = (np.abs(at % 1 - 0.5) < 1e-3).any(axis=0)
  np.testing.assert_array_equal(record["label"].ravel()[~tie], nearest[~tie])
  assert (~tie).mean() > 0.4


def _flip_label(root, case):
  write_label(label_path(root, case, "nbia"), case.to_stored_label()[::-1], SPACING)


def _drop_slice(root, case):
  scan_files(root, case)[3].unlink()


def _truncate_slice(root, case):
  file = scan_files(root, case)[2]
  file.write_bytes(file.read_bytes()[:-700])


def _repeat_slice(root, case):
  file = scan_files(root, case)[2]
  shutil.copy(file, file.with_name("copy.dcm"))


def _change_values(root, case):
  write_label(label_path(root, case, "nbia"), case.to_stored_label() * 2, SPACING)


def _empty_label(root, case):
  write_label(label_path(root, case, "nbia"), case.to_stored_label() * 0, SPACING)


def _shorten_label(root, case):
  write_label(label_path(root, case, "nbia"), case.to_stored_label()[:, :, :-1], SPACING)


def _write_wrong_distance(root, case):
  write_label(label_path(root, case, "nbia"), case.to_stored_label(), (*SPACING[:2], 1.0))


def _damage_label(root, case):
  path = label_path(root, case, "nbia")
  path.write_bytes(path.read_bytes()[:-20])


def _remove_label(root, case):
  label_path(root, case, "nbia").unlink()


def _add_second_label(root, case):
  write_label(root / f"label{case.number:04d}.nii", case.to_stored_label(), SPACING)


def _add_second_scan(root, case):
  shutil.copytree(root / "manifest-1", root / "manifest-2", ignore=lambda _, names: [
    name for name in names if name.startswith("PANCREAS_") and name != case.id
  ])  # fmt: skip


def _remove_scan(root, case):
  shutil.rmtree(scan_files(root, case)[0].parents[2])


def _do_nothing(root, case):
  pass


def scan_files(root, case):
  return sorted(root.glob(f"manifest-1/Pancreas-CT/{case.id}/*/*/*.dcm"))


def _make_swapped_case(number):
  case = FakeCase(number)
  case.instances[2:4] = [4, 3]
  return case


def _make_case_from_two(number):
  case = FakeCase(number)
  label = case.to_stored_label()
  case.instances = [instance + 1 for instance in case.instances]
  case.to_stored_label = lambda: label
  return case


# What is done to a case, and what its complaint must say.
BAD = [
  (
    FakeCase(4),
    _flip_label,
    r"flipped along x the label fits better: score 0\.9\d+ against -?\d\.\d+",
  ),
  (FakeCase(5), _drop_slice, r"slice"),
  (FakeCase(6), _truncate_slice, r"1-\d+\.dcm.*truncated"),
  (FakeCase(7), _repeat_slice, r"copy\.dcm"),
  (FakeCase(8), _change_values, r"label values are \[0, 2\]"),
  (FakeCase(9), _empty_label, r"label is empty"),
  (FakeCase(10), _shorten_label, r"scan has 8 slices and the label 7"),
  (
    FakeCase(11),
    _write_wrong_distance,
    r"2\.500 mm apart by their positions and 1\.000 mm by the label",
  ),
  (FakeCase(12), _damage_label, r"label0012\.nii\.gz: cannot be read"),
  (FakeCase(13), _remove_label, r"no label \(label0013\)"),
  (FakeCase(14), _add_second_label, r"2 labels: .*label0014\.nii.*keep one"),
  (FakeCase(18), _add_second_scan, r"2 scans: .*manifest-1.*manifest-2.*keep one"),
  (FakeCase(15), _remove_scan, r"no scan \(folder PANCREAS_0015\)"),
  (
    _make_swapped_case(16),
    _do_nothing,
    r"neither rise nor fall with the position: \[4 3 5\] at slices 3 to 5",
  ),
  (_make_case_from_two(17), _do_nothing, r"run from 2 to 9 over 8 slices, not from 1 to 8"),
]


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory):
  root = tmp_path_factory.mktemp("bad")
  for case in (FakeCase(1), FakeCase(70)):
    write_case(root, case, "nbia")
  for case, harm, _ in BAD:
    write_case(root, case, "nbia")
    harm(root, case)
  return root


@pytest.fixture(scope="module")
def complaint(bad_files, tmp_path_factory):
  """Returns what a build says that may not skip cases, in one line."""
  data = tmp_path_factory.mktemp("stopped")
  with pytest.raises(UserError) as caught:
    build_dataset(NATIVE, data, manual_dir=bad_files)
  assert find_built_version(NATIVE, data) is None
  assert "\n" not in str(caught.value)
  return str(caught.value)


@pytest.fixture(scope="module")
def skipping(bad_files, tmp_path_factory):
  """Returns the report of a build that may skip cases."""
  data = tmp_path_factory.mktemp("skipped")
  folder = build_dataset(NATIVE, data, manual_dir=bad_files, skip_bad_cases=True)
  assert open_records(NATIVE, data).splits["train"].case_ids == ["PANCREAS_0001"]
  return json.loads((folder / REPORT_FILE).read_text())


@pytest.mark.parametrize(("case", "harm", "words"), BAD, ids=[h.__name__ for _, h, _ in BAD])
def test_a_bad_case_is_named_with_its_figures(case, harm, words, complaint, skipping):
  about = [part for part in complaint.split(" | ") if part.startswith(case.id)]
  assert len(about) == 1
  assert re.search(words, about[0])
  assert f"{case.id}: {'; '.join(skipping['left_out'][case.id]['problems'])}" == about[0]


def test_all_bad_cases_are_named_at_once_and_the_good_one_is_not(complaint, skipping):
  assert complaint.startswith(f"{NATIVE}: {len(BAD)} of {len(BAD) + 1} cases cannot be used")
  assert "--skip_bad_cases" in complaint
  assert sorted(skipping["left_out"]) == sorted(case.id for case, _, _ in BAD)
  assert "PANCREAS_0001:" not in complaint
  assert not any(value in complaint for value in PATIENT.values())


@pytest.mark.slow
def test_beam_names_the_same_cases_and_leaves_out_the_same(
  bad_files, complaint, skipping, tmp_path
):
  with pytest.raises(UserError) as caught:
    build_dataset(NATIVE, tmp_path, manual_dir=bad_files, beam_runner="DirectRunner")
  assert str(caught.value) == complaint
  assert find_built_version(NATIVE, tmp_path) is None
  options = {"beam_runner": "DirectRunner", "beam": ["direct_num_workers=1"]}
  folder = build_dataset(NATIVE, tmp_path, manual_dir=bad_files, skip_bad_cases=True, **options)
  assert json.loads((folder / REPORT_FILE).read_text()) == skipping
  assert open_records(NATIVE, tmp_path).splits["train"].case_ids == ["PANCREAS_0001"]


def test_nothing_but_bad_cases_is_no_data_set(tmp_path):
  case = FakeCase(4)
  write_case(tmp_path / "files", case, "nbia")
  _flip_label(tmp_path / "files", case)
  with pytest.raises(UserError, match="1 of 1 cases cannot be used; there is no other case"):
    build_dataset(NATIVE, tmp_path / "data", manual_dir=tmp_path / "files", skip_bad_cases=True)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("lost", ["scans", "labels"])
def test_missing_files_give_a_check_list(tmp_path, layout, lost):
  write_case(tmp_path, FakeCase(1), layout)
  for path in tmp_path.rglob("*.dcm" if lost == "scans" else "label*"):
    path.unlink()
  if lost == "scans":
    for path in [p for p in tmp_path.rglob("PANCREAS_0001") if p.is_dir()]:
      path.rename(path.with_name("renamed"))
  with pytest.raises(UserError, match=rf"no {lost} of Pancreas-CT.*\(1\).*\(2\) the labels"):
    build_dataset(NATIVE, tmp_path / "data", manual_dir=tmp_path)


def test_a_missing_or_empty_folder_gives_the_check_list(tmp_path):
  for manual_dir in (None, tmp_path / "none", tmp_path):
    with pytest.raises(UserError, match=r"--manual_dir.*TCIA_pancreas_labels-02-05-2017"):
      build_dataset(NATIVE, tmp_path.parent / "unused", manual_dir=manual_dir)


@pytest.mark.parametrize("config", ["", "iso0mm", "iso2", "2mm", "native_80"])
def test_an_unknown_grid_is_refused(config, tmp_path):
  with pytest.raises(UserError, match="pancreas_ct/native, pancreas_ct/iso2mm, pancreas_ct/iso1mm"):
    build_dataset(f"pancreas_ct/{config}", tmp_path, manual_dir=tmp_path)


@pytest.mark.slow
def test_the_command_skips_bad_cases_and_says_where_the_figures_are(bad_files, tmp_path):
  flags = [f"--manual_dir={bad_files}", f"--data_dir={tmp_path}", "--skip_bad_cases"]
  done = run_command("tfds_pancreas.build", "--dataset=pancreas_ct/iso4mm", *flags)
  assert (done.returncode, done.stderr) == (0, "")
  report = tmp_path / "pancreas_ct/iso4mm/1.0.0" / REPORT_FILE
  assert done.stdout.splitlines()[-1].endswith(f"figures of every case: {report}")
  assert len(json.loads(report.read_text())["left_out"]) == len(BAD)


def test_phantoms_are_made_from_no_files(tmp_path):
  with pytest.raises(UserError, match="leave out --manual_dir"):
    build_dataset("phantom_ct/tiny", tmp_path, manual_dir=tmp_path)
