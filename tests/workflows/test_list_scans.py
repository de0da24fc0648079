"""Which scans a path holds: one series is one scan, and what is none is counted."""

import os
import sys
import zipfile

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.workflows import list_scans as workflow
from attn_unet_jax.workflows.list_scans import list_scans
from tests.conftest import SHARED
from tests.written_dicom import moving, slices_of, write, write_volume

SCAN = Volume(np.arange(80, dtype=np.int16).reshape(5, 4, 4), np.diag([-0.8, -0.7, 2.5, 1]))
MASK = "mask.nii.gz"
LOCALIZER = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def make_report(uid="1.2.9"):
  one = Dataset()
  one.file_meta = FileMetaDataset()
  one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
  one.SOPClassUID, one.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.67", generate_uid()
  one.Modality, one.SeriesInstanceUID, one.StudyInstanceUID = "SR", uid, "1.2"
  return one


def write_study(root):
  write(root / "SE001", slices_of(SCAN), name="IM{k:04d}")
  write(root / "SE002", slices_of(SCAN, uid="1.2.8", ImageType=LOCALIZER)[:1], name="IM{k:04d}")
  write(root / "SE003", [make_report()], name="SR{k}")


def names(source, output):
  return {target.name: scan for scan, target in list_scans(source, output).scans}


def read_one(source, output):
  ((scan, _),) = list_scans(source, output).scans
  return scan.read().array


@pytest.mark.parametrize("output", [MASK, "masks"])
def test_the_one_ct_of_a_study_is_found_and_the_rest_is_counted(output, tmp_path):
  write_study(tmp_path / "study")
  (tmp_path / "study" / "README").write_text("")
  listing = list_scans(tmp_path / "study", tmp_path / output)
  ((scan, target),) = listing.scans
  np.testing.assert_array_equal(scan.read().array, SCAN.array)
  assert target.name == (MASK if output == MASK else "SE001.nii.gz")
  assert +listing.skipped == {"localizer": 1, "of modality SR": 1, "neither NIfTI nor DICOM": 1}


def test_a_scout_that_does_not_say_so_belongs_to_its_study(tmp_path):
  write_study(tmp_path / "study")
  write(tmp_path / "study" / "SE004", slices_of(SCAN, uid="1.2.7", Rows=2, Columns=10)[:1])
  listing = list_scans(tmp_path / "study", tmp_path / MASK)
  assert len(listing.scans) == 1
  assert listing.skipped["CT series of a single image"] == 1
  assert set(names(tmp_path / "study", tmp_path / "masks")) == {"SE001.nii.gz"}


@pytest.mark.parametrize("folders", [("a", "b"), ("a/x", "a/y"), ("a", "a/b"), ("", "b")])
@pytest.mark.parametrize("output", [MASK, "masks"])
def test_one_series_in_two_folders_is_one_scan(folders, output, tmp_path):
  slices = slices_of(SCAN)
  for folder, some in zip(folders, (slices[:2], slices[2:]), strict=True):
    write(tmp_path / "scan" / folder, some)
  np.testing.assert_array_equal(read_one(tmp_path / "scan", tmp_path / output), SCAN.array)


def test_masks_of_patients_are_named_by_their_folders(tmp_path):
  for number, uid in enumerate(("1.1", "1.2", "1.3"), start=1):
    slices = slices_of(SCAN, uid=uid, StudyInstanceUID=uid)
    write(tmp_path / "in" / f"p{number}" / "a", slices[:2])
    write(tmp_path / "in" / f"p{number}" / "b", slices[2:])
  write(tmp_path / "in" / "p4", slices_of(SCAN, uid="1.9", Modality="MR"))
  listing = list_scans(tmp_path / "in", tmp_path / "masks")
  assert [target.name for _, target in listing.scans] == [f"p{k}.nii.gz" for k in (1, 2, 3)]
  assert +listing.skipped == {"of modality MR": 4}


def test_several_scans_without_a_uid_are_listed_by_their_names(tmp_path):
  write_volume(tmp_path / "in" / "a", SCAN, uid="")
  write_volume(tmp_path / "in" / "b", SCAN, uid="")
  with pytest.raises(UserError, match=r"contains 2 scans \(a, b\); or name one of them") as refused:
    list_scans(tmp_path / "in", tmp_path / MASK)
  assert "--series" not in str(refused.value)


def test_several_series_are_listed_where_one_mask_is_asked_for(tmp_path):
  write_volume(tmp_path / "in" / "a", SCAN, uid="1.1")
  write_volume(tmp_path / "in" / "b", SCAN, uid="1.2")
  with pytest.raises(UserError) as refused:
    list_scans(tmp_path / "in", tmp_path / MASK)
  for part in ("contains 2 scans", "1.1 (series 4, 4 slices of 5x4", "in b)", "--series=UID"):
    assert part in str(refused.value)
  ((scan, _),) = list_scans(tmp_path / "in", tmp_path / MASK, series="1.2").scans
  np.testing.assert_array_equal(scan.read().array, SCAN.array)
  assert scan.count_skipped() == {"of another CT series": 4}


def test_a_folder_of_damage_beside_the_one_series_is_told(tmp_path):
  write_study(tmp_path / "study")
  (tmp_path / "study" / "SE003" / "17.dcm").write_bytes(b"")
  with pytest.raises(UserError, match=r"17\.dcm: truncated or damaged"):
    list_scans(tmp_path / "study", tmp_path / MASK)


def test_a_folder_without_ct_says_what_it_holds(tmp_path):
  write(tmp_path / "study" / "SE003", [make_report()])
  with pytest.raises(UserError, match=r"no CT series in it \(skipped: 1 of modality SR\)"):
    list_scans(tmp_path / "study", tmp_path / MASK)


def pack(path, files):
  with zipfile.ZipFile(path, "w") as archive:
    for file in files:
      archive.write(file, file.name)


def test_a_series_divided_among_zips_is_refused(tmp_path):
  files = write(tmp_path / "written", slices_of(SCAN))
  (tmp_path / "in").mkdir()
  pack(tmp_path / "in" / "a.zip", files[:2])
  pack(tmp_path / "in" / "b.zip", files[2:])
  for scan in names(tmp_path / "in", tmp_path / "masks").values():
    with pytest.raises(UserError, match=r"series 1\.2\.3 lies in .*one scan; unpack them"):
      scan.read()


def test_a_copy_of_a_scan_is_a_scan(tmp_path):
  pack(tmp_path / "z.zip", write(tmp_path / "in" / "a", slices_of(SCAN)))
  (tmp_path / "z.zip").rename(tmp_path / "in" / "z.zip")
  write(tmp_path / "in" / "b", slices_of(SCAN))  # an anonymiser may give every patient one UID
  found = names(tmp_path / "in", tmp_path / "masks")
  assert set(found) == {"a.nii.gz", "b.nii.gz", "z.nii.gz"}
  for scan in found.values():
    np.testing.assert_array_equal(scan.read().array, SCAN.array)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("tag", ["StudyInstanceUID", "FrameOfReferenceUID"])
def test_patients_under_one_uid_are_scans_of_their_own(packed, tag, tmp_path):
  for study in (1, 2):
    slices = slices_of(SCAN, **{tag: f"1.9.{study}"})
    for k in range(len(slices)):
      moving(k, study * 1.25)(slices)
    files = write(tmp_path / ("written" if packed else "in") / f"p{study}", slices)
    if packed:
      (tmp_path / "in").mkdir(exist_ok=True)
      pack(tmp_path / "in" / f"p{study}.zip", files)
  found = names(tmp_path / "in", tmp_path / "masks")
  assert set(found) == {"p1.nii.gz", "p2.nii.gz"}
  for scan in found.values():
    np.testing.assert_array_equal(scan.read().array, SCAN.array)


def test_a_bad_zip_among_scans_is_told_in_its_turn(tmp_path):
  write_volume(tmp_path / "in" / "a", SCAN)
  (tmp_path / "in" / "b.zip").write_bytes(b"no zip")
  found = names(tmp_path / "in", tmp_path / "masks")
  found["a.nii.gz"].read()
  with pytest.raises(UserError, match=r"b\.zip: not a readable zip"):
    found["b.nii.gz"].read()


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real scans beside the project")
@pytest.mark.parametrize(
  ("folder", "scans", "skipped"),
  [
    ("ct_dicom", ["expected", "series", "series_jpeg2000"], {}),
    ("ct_dicom/series", ["series"], {}),
    ("ct_dicom_3slice", ["series"], {"of modality SEG": 1, "not DICOM": 3}),
    ("ct_dicom_irregular", ["ct_dicom_irregular"], {"not DICOM": 1}),
  ],
)
def test_real_scans_are_found_without_an_alarm(folder, scans, skipped, tmp_path):
  listing = list_scans(SHARED / folder, tmp_path / "masks")
  assert [target.name.removesuffix(".nii.gz") for _, target in listing.scans] == scans
  assert +listing.skipped == skipped
  assert not any(scan.survey and scan.survey.damaged for scan, _ in listing.scans)


# Output


@pytest.mark.parametrize("name", ["x.dcm", "x.DCM", "x.nrrd", "x.mha", "x.zip", "X.NII.GZ"])
@pytest.mark.parametrize("single", [True, False])
def test_a_mask_in_another_format_is_refused_with_the_way_out(name, single, tmp_path):
  write_nifti(tmp_path / "in" / "a.nii", SCAN)
  source = tmp_path / "in" / ("a.nii" if single else "")
  with pytest.raises(UserError, match=r"masks are written as NIfTI .* end.* in \.nii or \.nii\.gz"):
    list_scans(source, tmp_path / name)


@pytest.mark.parametrize("name", ["m.nii.gz", "m.nii", "m.DCM", "m.zip"])
def test_a_name_that_contradicts_the_format_is_refused(name, tmp_path):
  write_volume(tmp_path / "in", SCAN)
  with pytest.raises(UserError, match=r"rtstruct writes DICOM; name a file that ends in \.dcm"):
    list_scans(tmp_path / "in", tmp_path / name, output_format="rtstruct")


def test_dicom_without_the_format_names_the_flag(tmp_path):
  write_volume(tmp_path / "in", SCAN)
  with pytest.raises(UserError, match=r"m\.dcm: .*--output_format=dicom-seg or =rtstruct"):
    list_scans(tmp_path / "in", tmp_path / "m.dcm")


def test_masks_in_dicom_are_called_so(tmp_path):
  write_study(tmp_path / "study")
  for output in ("m.dcm", "masks"):
    listing = list_scans(tmp_path / "study", tmp_path / output, output_format="rtstruct")
    ((_, target),) = listing.scans
    assert target == tmp_path / (output if output == "m.dcm" else "masks/SE001.dcm")


@pytest.mark.parametrize("output_format", ["dicom-seg", "rtstruct"])
def test_a_scan_that_is_no_dicom_has_no_mask_in_dicom(output_format, tmp_path, monkeypatch):
  monkeypatch.setattr(workflow, "import_highdicom", lambda: None)
  for name in ("a", "b"):
    write_nifti(tmp_path / "in" / f"{name}.nii", SCAN)
  scan, masks = tmp_path / "in" / "a.nii", tmp_path / "masks"
  for source, output in ((scan, tmp_path / "m.dcm"), (scan.parent, masks)):
    with pytest.raises(UserError, match=rf"a\.nii: is no DICOM, .*{output_format} refers"):
      list_scans(source, output, output_format=output_format)
  write_volume(scan.parent / "c", SCAN)
  listing = list_scans(scan.parent, masks, output_format=output_format)
  assert [target.name for _, target in listing.scans] == ["c.dcm"]
  assert [target.name for _, target, _ in listing.broken] == ["a.dcm", "b.dcm"]
  assert "b.nii: is no DICOM" in listing.broken[1][2]


def test_without_highdicom_no_scan_is_begun(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "highdicom", None)
  write_volume(tmp_path / "in", SCAN)
  with pytest.raises(UserError, match=r"needs highdicom.*\[dicom\]'$"):
    list_scans(tmp_path / "in", tmp_path / "m.dcm", output_format="dicom-seg")
  list_scans(tmp_path / "in", tmp_path / "m.dcm", output_format="rtstruct")


def test_a_slice_of_the_scan_is_not_overwritten(tmp_path):
  write_volume(tmp_path / "in", SCAN)
  with pytest.raises(UserError, match=r"1\.dcm: would overwrite the scan .*/in; choose another"):
    list_scans(tmp_path / "in", tmp_path / "in" / "1.dcm", output_format="rtstruct")


def test_a_folder_may_be_called_so(tmp_path):
  write_nifti(tmp_path / "in" / "a.nii", SCAN)
  (tmp_path / "x.dcm").mkdir()
  assert set(names(tmp_path / "in", tmp_path / "x.dcm")) == {"a.nii.gz"}


def test_names_of_255_bytes(tmp_path):
  folder = tmp_path / "in" / ("ä" * 127)
  write(folder, slices_of(SCAN), name="x" * 249 + "{k}.dcm")
  np.testing.assert_array_equal(read_one(folder, tmp_path / MASK), SCAN.array)
  with pytest.raises(UserError, match=r"longer than a file system takes; rename the scan"):
    list_scans(folder, tmp_path / "masks")
  with pytest.raises(UserError, match="longer than a file system takes"):
    list_scans(folder, tmp_path / ("m" * 248 + ".nii.gz"))
  with pytest.raises(UserError, match="not found"):
    list_scans(tmp_path / ("n" * 300), tmp_path / MASK)


def test_a_fifo_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / "1.dcm")
  os.mkfifo(tmp_path / "x.nii.gz")
  os.mkfifo(tmp_path / "x.zip")
  for source in ("1.dcm", "x.nii.gz"):
    with pytest.raises(UserError, match="fifo"):
      read_one(tmp_path / source, tmp_path / MASK)
  with pytest.raises(UserError, match="fifo"):
    read_one(tmp_path / "x.zip", tmp_path / MASK)
  for scan, _ in list_scans(tmp_path, tmp_path / "masks").scans:
    with pytest.raises(UserError, match="fifo"):
      scan.read()
