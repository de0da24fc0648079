"""The command as a user runs it: a folder in which every kind of thing is wrong."""

import json

import numpy as np
import pytest

from attn_unet_jax.inspection.sources import list_cases_at
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.nifti import write_nifti
from benchmarks.orientations import on_axes
from tests.conftest import run_command
from tests.drawn_ct import AFFINE, drawn_ct, drawn_label
from tests.written_dicom import assert_anonymous, slices_of, write, write_volume

CHECK = "attn_unet_jax.check"


def put(folder, case, seed, label=None):
  write_nifti(folder / "imagesTr" / f"{case}.nii.gz", drawn_ct(seed))
  write_nifti(folder / "labelsTr" / f"{case}.nii.gz", label or drawn_label())


def moved(by):
  return Volume(np.roll(drawn_label().array, by, axis=2), AFFINE)


@pytest.fixture
def good(tmp_path):
  for seed in range(3):
    put(tmp_path / "data", f"case{seed}", seed, moved(seed))
  return tmp_path / "data"


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
  folder = tmp_path_factory.mktemp("bad")
  images, labels = folder / "imagesTr", folder / "labelsTr"
  put(folder, "good", 0)
  put(folder, "truncated", 1, moved(1))
  path = images / "truncated.nii.gz"
  path.write_bytes(path.read_bytes()[:3000])
  put(folder, "alone", 2, moved(2))
  (labels / "alone.nii.gz").rename(labels / "alone_seg.nii.gz")
  put(folder, "offset", 3, moved(3))
  write_nifti(images / "offset.nii.gz", Volume(drawn_ct(3).array + 1024, AFFINE))
  put(folder, "values", 4, Volume(moved(4).array * 255, AFFINE))
  put(folder, "flipped", 5, Volume(drawn_label().array[::-1], AFFINE))
  shifted = AFFINE.copy()
  shifted[0, 3] += 20
  put(folder, "shifted", 6, Volume(moved(5).array, shifted))
  put(folder, "again", 7, moved(6))
  write_nifti(images / "again.nii.gz", on_axes(drawn_ct(0), "LPS"))
  put(folder, "empty", 8, Volume(drawn_label().array * 0, AFFINE))
  write_nifti(images / "good.nii", drawn_ct(0))
  return folder


def test_a_sound_folder_ends_with_status_0_and_a_table(good):
  done = run_command(CHECK, f"--input={good}")
  assert (done.returncode, done.stderr) == (0, "")
  lines = done.stdout.splitlines()
  assert lines[-1] == "3 cases: 0 errors, 0 warnings, 0 notes"
  assert lines[-2] == "orientation: RAS 3"
  table = {line.rsplit(None, 4)[0]: line.split()[-4:] for line in lines[1:-2]}
  assert table["spacing Z mm"] == ["3", "8", "8", "8"]
  assert table["pancreas ml"] == ["3", "49.15", "49.15", "49.15"]


def test_every_bad_file_is_named_and_the_status_is_2(bad, tmp_path):
  done = run_command(CHECK, f"--input={bad}", f"--output={tmp_path}/out")
  assert done.returncode == 2
  assert done.stderr.startswith(
    "error: 10 errors (7 in 7 of 10 cases, 3 in the list of files), named"
  )
  assert done.stderr.count("\n") == 1
  report = json.loads((tmp_path / "out" / "check.json").read_text())
  assert report["count"] == {"error": 10, "warning": 0, "note": 0}
  kinds = {case["id"]: [one["kind"] for one in case["findings"]] for case in report["cases"]}
  assert kinds == {
    "again": [],
    "alone": [],
    "alone_seg": [],
    "empty": ["empty_label"],
    "flipped": ["flipped"],
    "good": ["duplicate"],
    "offset": ["hounsfield"],
    "shifted": ["grids"],
    "truncated": ["unreadable"],
    "values": ["label_values"],
  }
  listing = {one["kind"]: one["text"] for one in report["findings"]}
  assert sorted(one["kind"] for one in report["findings"]) == ["partner", "partner", "two_files"]
  assert "is it " in listing["partner"]
  for finding in [one for case in report["cases"] for one in case["findings"]]:
    assert f"error    {finding['text']}" in done.stdout.splitlines()
  numbers = {case["number"] for case in report["cases"]}
  assert numbers == set(range(1, 11))
  for name in report["contact_sheets"]:
    assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_records_are_looked_at(phantoms):
  flags = ("--dataset=phantom_ct/tiny", f"--data_dir={phantoms}")
  done = run_command(CHECK, *flags, "--config.data.patch=(16,16,16)")
  assert (done.returncode, done.stderr) == (0, "")
  assert "8 cases: 0 errors" in done.stdout


def test_scans_as_dicom_and_no_identity_in_what_is_written(tmp_path):
  scans = tmp_path / "scans"
  write_volume(scans / "a", drawn_ct(0))
  write(scans / "two" / "x", slices_of(drawn_ct(1), uid="1.2.5"))
  write(scans / "two" / "y", slices_of(drawn_ct(2), uid="1.2.6"))
  files = write_volume(scans / "gap", drawn_ct(3))
  files[4].unlink()
  files = write_volume(scans / "cut", drawn_ct(4))
  files[2].write_bytes(files[2].read_bytes()[:-500])
  write_nifti(scans / "label.nii.gz", drawn_label())
  done = run_command(CHECK, f"--input={scans}", f"--output={tmp_path}/out")
  assert done.returncode == 2
  assert done.stderr.startswith("error: 2 errors (2 in 2 of 6 cases), named")
  assert "1 missing slices: gaps of 16.000 mm" in done.stdout
  assert "2.dcm: its pixels are truncated" in done.stdout
  assert "2 CT series; predict needs --series=UID" in done.stdout
  report = json.loads((tmp_path / "out" / "check.json").read_text())
  cases = {case["id"]: case for case in report["cases"]}
  assert sorted(cases) == ["a", "cut", "gap", "label", "two 1.2.5", "two 1.2.6"]
  assert cases["label"]["taken_for"] == "label map"
  written = [path.read_bytes().decode("latin-1") for path in (tmp_path / "out").iterdir()]
  assert_anonymous("".join([done.stdout, done.stderr, *written]))


def test_a_scan_with_its_label_and_labels_elsewhere(good, tmp_path):
  image, label = (good / name / "case1.nii.gz" for name in ("imagesTr", "labelsTr"))
  (one,) = list_cases_at(image, label).subjects
  assert (one.id, one.may_be_labels) == ("case1", False)
  np.testing.assert_array_equal(one.label.read().array, moved(1).array)
  good.joinpath("labelsTr").rename(tmp_path / "elsewhere")
  source = list_cases_at(good, tmp_path / "elsewhere")
  assert [bool(case.image and case.label) for case in source.subjects] == [True] * 3
  assert source.findings == []


def test_names_come_from_the_dataset_json_and_a_broken_one_is_a_finding(good):
  (good / "dataset.json").write_text('{"labels": {"0": "background", "1": "pancreas"}}')
  assert list_cases_at(good).label_names == {"background": 0, "pancreas": 1}
  (good / "dataset.json").write_text("{")
  source = list_cases_at(good)
  assert len(source.subjects) == 3
  assert [one.kind for one in source.findings] == ["dataset_json"]


def test_names_that_do_not_fit_the_config_are_an_error_and_the_rest_is_looked_at(good):
  (good / "dataset.json").write_text('{"labels": {"background": 0, "liver": 1}}')
  done = run_command(CHECK, f"--input={good}")
  assert done.returncode == 2
  assert done.stderr.startswith("error: 1 error (1 in the list of files), named above")
  assert "'pancreas' must be one of ['background', 'liver']" in done.stdout
  assert "liver ml" in done.stdout


def test_dicom_among_training_images_is_not_what_training_reads(good):
  write_volume(good / "imagesTr" / "dicom", drawn_ct(5))
  assert len(list_cases_at(good).subjects) == 3


def test_paths_with_nothing_to_look_at(tmp_path):
  (tmp_path / "notes.txt").write_text("")
  for path, words in ((tmp_path / "none", "not found"), (tmp_path, "no .nii, .nii.gz or DICOM")):
    with pytest.raises(UserError, match=words):
      list_cases_at(path)


def test_wrong_flags_are_one_line():
  done = run_command(CHECK, "--input=a", "--dataset=b")
  assert done.returncode == 2
  assert done.stderr.startswith("error: give --input=PATH, or --config.data.dataset=NAME/CONFIG")
  assert done.stderr.count("\n") == 1


def test_an_output_that_cannot_be_written_is_refused_before_the_work(good):
  output = good / "imagesTr" / "case0.nii.gz" / "out"
  done = run_command(CHECK, f"--input={good}", f"--output={output}")
  why = "cannot be written (Not a directory); change its permissions, or name another"
  said = f"error: {output}: {why}\n"
  assert (done.returncode, done.stdout, done.stderr) == (2, "", said)
