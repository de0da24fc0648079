"""Which scans a table or a pattern names, and what their masks are called."""

import collections
from pathlib import Path

import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.list_scans import list_scans
from attn_unet_jax.workflows.scan_tables import match_scans, read_scan_table
from tests.written_dicom import write_volume

SCAN = Volume(np.arange(80, dtype=np.int16).reshape(5, 4, 4), np.diag([-0.8, -0.7, 2.5, 1]))


def table(tmp_path, text, encoding="utf-8"):
  path = tmp_path / "in" / "scans.csv"
  path.parent.mkdir(exist_ok=True)
  path.write_bytes(text.encode(encoding))
  return path


@pytest.mark.parametrize(
  "text",
  [
    "input\na.nii.gz\nsub/b\n",
    "image,note\na.nii.gz,x\nsub/b,\n",
    "\ufeffInput;output\r\na.nii.gz;\r\n\r\nsub/b;b.nii.gz\r\n",
    "output\tinput\n\ta.nii.gz\nb\tsub/b\n",
  ],
)
def test_the_scans_of_a_table(tmp_path, text):
  path = table(tmp_path, text)
  found = read_scan_table(path)
  assert {name: scan.path for name, scan in found.items()} == {
    "a": path.parent / "a.nii.gz",
    "b": path.parent / "sub" / "b",
  }


def test_a_table_names_masks_and_series(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", "/home/me")
  found = read_scan_table(
    table(tmp_path, 'input,output,series\n~/x.zip,"one, two",1.2\n/y/z.nii,,\n')
  )
  assert found == {
    "one, two": (Path("/home/me/x.zip"), "1.2"),
    "z": (Path("/y/z.nii"), None),
  }


@pytest.mark.parametrize(
  ("text", "said"),
  [
    ("", "no scans in it"),
    ("input\n", "no scans in it"),
    ("file,mask\na,b\n", "no column input or image, only file, mask"),
    ("input,output\na.nii,x\n,y\n", "line 3: names no scan; fill in the column input"),
    ("input\np/a.nii\nq/a.nii\n", "lines 2 and 3 would both have the mask a; name"),
    ("input,output\na.nii,../x\n", r"line 2: output=\.\./x: give the mask's name alone"),
    ("input,output\na.nii,.nii.gz\n", "line 2: output=.nii.gz: give"),
    ('input\n"a.nii\n', "not readable as CSV .*; save it as CSV in UTF-8"),
  ],
)
def test_what_is_no_table_is_refused(tmp_path, text, said):
  with pytest.raises(UserError, match=said):
    read_scan_table(table(tmp_path, text))


def test_a_table_in_another_encoding_is_refused(tmp_path):
  with pytest.raises(UserError, match="not readable as CSV"):
    read_scan_table(table(tmp_path, "input\nä.nii\n", "latin-1"))


def files(tmp_path, *names):
  for name in names:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"")


@pytest.mark.parametrize(
  ("present", "pattern", "named", "skipped"),
  [
    (["a.nii", "b.nii.gz", "c.txt", ".d.nii"], "*", ["a", "b"], 1),
    (["a1.nii", "a2.nii", "b1.nii"], "a?.nii", ["a1", "a2"], 0),
    (["p1/ct.nii.gz", "p2/ct.nii.gz"], "*/ct.nii.gz", ["p1_ct", "p2_ct"], 0),
    (["p/x/ct.nii", "p/y/ct.nii", "q/x/ct.nii"], "**/ct.nii", ["p_x_ct", "p_y_ct", "q_x_ct"], 0),
    (["a.zip", "p/1.dcm", "q/1.dcm"], "*", ["a", "p", "q"], 0),
    (["s/a.nii", "masks/a.nii", "masks/b/c.nii"], "**/*.nii", ["a"], 0),
  ],
)
def test_the_scans_of_a_pattern(tmp_path, present, pattern, named, skipped):
  files(tmp_path, *present)
  found = match_scans(tmp_path / pattern, tmp_path / "masks")
  assert list(found.scans) == named
  assert found.skipped.total() == skipped


@pytest.mark.parametrize(
  ("present", "pattern", "said"),
  [
    ([], "*.nii", "no NIfTI file, folder or .zip is called so; a DICOM"),
    (["s/1.dcm", "s/2.dcm"], "s/*.dcm", "but 2 other files or folders; a DICOM scan is named by"),
    (["a.nii", "a.nii.gz"], "*", "two scans would have the mask a; list the scans in a CSV"),
  ],
)
def test_a_pattern_without_scans_is_refused(tmp_path, present, pattern, said):
  files(tmp_path, *present)
  with pytest.raises(UserError, match=said):
    match_scans(tmp_path / pattern, tmp_path / "masks")


def test_folders_and_files_that_a_pattern_matches_are_listed_as_scans(tmp_path):
  write_volume(tmp_path / "in" / "p1", SCAN)
  write_nifti(tmp_path / "in" / "p2.nii.gz", SCAN)
  (tmp_path / "in" / "p3.zip").write_bytes(b"no zip")
  listing = list_scans(tmp_path / "in" / "p*", tmp_path / "masks")
  assert [target.name for _, target in listing.scans] == ["p1.nii.gz", "p2.nii.gz"]
  for scan, _ in listing.scans:
    np.testing.assert_array_equal(scan.read().array, SCAN.array)
  ((path, target, reason),) = listing.broken
  assert (path.name, target.name) == ("p3.zip", "p3.nii.gz")
  assert "not a readable zip" in reason
  with pytest.raises(UserError, match="must be a folder, since --input contains 3 scans"):
    list_scans(tmp_path / "in" / "p*", tmp_path / "m.nii.gz")


def test_a_file_whose_name_is_a_pattern_is_that_file(tmp_path):
  write_nifti(tmp_path / "a[1].nii", SCAN)
  ((scan, target),) = list_scans(tmp_path / "a[1].nii", tmp_path / "m.nii").scans
  assert (scan.path.name, target.name) == ("a[1].nii", "m.nii")


def test_a_series_is_for_one_scan(tmp_path):
  files(tmp_path, "a.nii")
  with pytest.raises(UserError, match=r"--series=1\.2: is for one scan.* a column called series"):
    list_scans(tmp_path / "*.nii", tmp_path / "masks", series="1.2")


def test_a_mask_would_overwrite_another_scan(tmp_path):
  files(tmp_path, "in/a.nii", "in/b.nii.gz")
  path = table(tmp_path, "input,output\na.nii,b\nb.nii.gz,c\n")
  with pytest.raises(UserError, match=r"would overwrite the scan .*b\.nii\.gz"):
    list_scans(path, tmp_path / "in")


def test_what_a_pattern_skips_is_counted(tmp_path):
  files(tmp_path, "a.nii", "b.txt")
  listing = list_scans(tmp_path / "*", tmp_path / "masks")
  assert listing.skipped == collections.Counter({"neither NIfTI nor DICOM": 1})
