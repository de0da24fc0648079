import io
import logging
import zipfile

import numpy as np
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, SecondaryCaptureImageStorage

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.dicom import deflated
from attn_unet_jax.volumes.dicom import files as dicom_files
from attn_unet_jax.volumes.dicom.read import find_series, read_dicom, read_series, survey_files
from tests.written_dicom import assert_anonymous, slices_of, write, write_volume

SCAN = Volume(np.arange(60, dtype=np.int16).reshape(5, 4, 3), np.diag([-0.8, -0.7, 2.5, 1]))
OTHER = Volume(np.arange(24, dtype=np.int16).reshape(3, 2, 4), np.diag([-0.8, -0.7, 5, 1]))


def zip_folder(path, names, folder):
  """Packs the files of a folder into a zip under other names."""
  with zipfile.ZipFile(path, "w") as archive:
    for name, file in zip(names, sorted(folder.iterdir()), strict=True):
      archive.writestr(zipfile.ZipInfo(name), file.read_bytes(), zipfile.ZIP_DEFLATED)
  return path


def test_nested_series_without_suffix_among_other_files(tmp_path):
  write(tmp_path / "a" / "b", slices_of(SCAN), name="IM{k}")
  write(tmp_path / "a" / "c", slices_of(OTHER, uid="1.2.4"), name="IM{k}")
  write(tmp_path / "a" / ".cache", slices_of(SCAN))
  (tmp_path / "LICENSE").write_text("no scan")
  (tmp_path / "empty").write_text("")
  first, second = find_series(tmp_path)
  assert (first.uid, first.num_files, second.uid, second.num_files) == ("1.2.3", 3, "1.2.4", 4)
  assert {file.name for file in first.files} == {"IM0", "IM1", "IM2"}
  assert first.description == "series 4, 3 slices of 5x4, thickness 2.5 mm"
  np.testing.assert_array_equal(read_series(second).volume.array, OTHER.array)


def test_slices_of_one_series_may_lie_in_several_folders(tmp_path):
  slices = slices_of(SCAN)
  write(tmp_path / "a", slices[:1])
  write(tmp_path / "b", slices[1:])
  np.testing.assert_array_equal(read_dicom(tmp_path).volume.array, SCAN.array)


def test_several_series_are_listed_and_one_can_be_chosen(tmp_path):
  write_volume(tmp_path / "a", SCAN)
  write_volume(tmp_path / "b", OTHER, uid="1.2.4", ConvolutionKernel=["Br38f", "3"])
  with pytest.raises(UserError) as refused:
    read_dicom(tmp_path)
  for word in (
    "2 CT series, one is needed",
    "1.2.3 (series 4, 3 slices of 5x4, thickness 2.5 mm, in a)",
    "1.2.4 (series 4, 4 slices of 3x2, thickness 5 mm, kernel Br38f/3, in b)",
    "--series=UID",
  ):
    assert word in str(refused.value)
  assert_anonymous(str(refused.value))
  np.testing.assert_array_equal(read_dicom(tmp_path, series_uid="1.2.4").volume.array, OTHER.array)
  with pytest.raises(UserError, match=r"no one series 1\.9: 1\.2\.3"):
    read_dicom(tmp_path, series_uid="1.9")


def test_files_without_a_uid_are_one_series_a_folder(tmp_path):
  write_volume(tmp_path / "a", SCAN, SeriesInstanceUID="")
  write_volume(tmp_path / "b", OTHER, SeriesInstanceUID="")
  assert [(one.uid, one.num_files) for one in find_series(tmp_path)] == [("", 3), ("", 4)]
  with pytest.raises(UserError, match=r"no UID \(.*, in a\); no UID \(.*, in b\).*name the folder"):
    read_dicom(tmp_path)


def test_localizers_captures_and_other_modalities_are_passed_over(tmp_path):
  write(tmp_path / "ct", slices_of(SCAN))
  write(tmp_path / "scout", slices_of(SCAN, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])[:1])
  write(tmp_path / "mr", slices_of(SCAN, uid="1.5", Modality="MR"))
  write(tmp_path / "shot", slices_of(SCAN, SOPClassUID=SecondaryCaptureImageStorage)[:1])
  assert [one.num_files for one in find_series(tmp_path)] == [3]
  np.testing.assert_array_equal(read_dicom(tmp_path).volume.array, SCAN.array)


def test_a_folder_without_ct_says_what_it_holds(tmp_path):
  write(tmp_path / "scout", slices_of(SCAN, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])[:2])
  write(tmp_path / "mr", slices_of(SCAN, uid="1.5", Modality="MR"))
  (tmp_path / "README").write_text("")
  assert find_series(tmp_path) == []
  with pytest.raises(UserError) as refused:
    read_dicom(tmp_path)
  for word in ("2 localizer", "3 of modality MR", "1 not DICOM"):
    assert word in str(refused.value)


@pytest.mark.parametrize(
  ("make", "complaint"),
  [
    (lambda path: None, "no such file or folder"),
    (lambda path: path.write_text("text"), "a single file"),
    (lambda path: path.mkdir(), "no CT series in it (skipped: nothing)"),
  ],
)
def test_paths_that_hold_no_scan(make, complaint, tmp_path):
  path = tmp_path / "scan"
  make(path)
  with pytest.raises(UserError) as refused:
    read_dicom(path)
  assert complaint in str(refused.value)


def test_no_identity_in_series_logs_or_output(tmp_path, caplog, capfd):
  write_volume(tmp_path / "a", SCAN, PixelPaddingValue=1024)
  with caplog.at_level(logging.DEBUG):
    (series,) = find_series(tmp_path)
    read = read_series(series)
  printed = capfd.readouterr()
  for text in (repr(series), repr(read), caplog.text, printed.out, printed.err):
    assert_anonymous(text)
  assert "left as it is" in caplog.text


def test_a_damaged_file_is_named_and_hides_no_other(tmp_path):
  write(tmp_path / "a", slices_of(SCAN))
  cut, empty = write(tmp_path / "b", slices_of(OTHER, uid="1.2.4"))[:2]
  cut.write_bytes(cut.read_bytes()[:400])
  empty.write_bytes(b"")
  found = survey_files(tmp_path)
  assert [(one.uid, one.num_files) for one in found.series] == [("1.2.3", 3), ("1.2.4", 2)]
  assert sorted(found.damaged) == sorted([cut, empty])
  for file, problem in found.damaged.items():
    assert problem.startswith(f"{file}: ")
    assert_anonymous(problem)
  with pytest.raises(UserError, match="truncated"):  # it might belong to any
    find_series(tmp_path)


# Zip files


def test_a_zip_is_read_and_nothing_is_unpacked(tmp_path):
  write(tmp_path / "scan", slices_of(SCAN))
  path = zip_folder(tmp_path / "x.zip", ["p/s/1", "p/s/2", "p/s/3"], tmp_path / "scan")
  with zipfile.ZipFile(path, "a") as archive:
    archive.writestr("__MACOSX/p/._1.dcm", b"resource fork")
    archive.writestr("p/.DS_Store", b"")
  before = sorted(tmp_path.rglob("*"))
  (series,) = find_series(path)
  assert series.files[0] == path / "p" / "s" / "1"
  np.testing.assert_array_equal(read_series(series).volume.array, SCAN.array)
  assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil", "C:\\evil"])
def test_a_zip_whose_paths_lead_out_is_refused(name, tmp_path):
  write(tmp_path / "scan", slices_of(SCAN))
  path = zip_folder(tmp_path / "x.zip", ["1", "2", name], tmp_path / "scan")
  with pytest.raises(UserError, match="leads out of the zip"):
    find_series(path)


@pytest.mark.parametrize(
  ("limit", "value"), [("MAX_MEMBERS", 2), ("MAX_UNPACKED_BYTES", 1000), ("MAX_MEMBER_BYTES", 500)]
)
def test_a_zip_beyond_the_limits_is_refused(limit, value, tmp_path, monkeypatch):
  write(tmp_path / "scan", slices_of(SCAN))
  path = zip_folder(tmp_path / "x.zip", ["1", "2", "3"], tmp_path / "scan")
  monkeypatch.setattr(dicom_files, limit, value)
  with pytest.raises(UserError, match=r"x\.zip: unpacks to 3 files"):
    find_series(path)


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path):
  """No more than the size in the directory is read, and then the checksum fails."""
  path = tmp_path / "x.zip"
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("1", b"\0" * 1_000_000)
  data, size = path.read_bytes(), (1_000_000).to_bytes(4, "little")
  path.write_bytes(data.replace(size, (1000).to_bytes(4, "little")))
  with pytest.raises(UserError, match="damaged in the zip"):
    find_series(path)


def test_a_deflated_file_that_unpacks_beyond_the_limit_is_refused(tmp_path, monkeypatch):
  slices = slices_of(SCAN)
  for one in slices:
    one.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
  slices[1].PixelData = bytes(4_000_000)
  files = write(tmp_path, slices)
  assert files[1].stat().st_size < 10_000
  assert [one.num_files for one in find_series(tmp_path)] == [3]
  monkeypatch.setattr(deflated, "MAX_UNPACKED_BYTES", 2 << 20)
  with pytest.raises(UserError, match=r"1\.dcm: unpacks to more than 2 MiB"):
    find_series(tmp_path)
  files[1].write_bytes(files[1].read_bytes()[:500] + bytes([255] * 500))
  with pytest.raises(UserError, match=r"1\.dcm: truncated or damaged"):
    find_series(tmp_path)


@pytest.mark.parametrize("harm", ["zero", "large", "missing"])
def test_a_bomb_is_found_whatever_the_length_of_its_meta_information(harm, tmp_path, monkeypatch):
  slices = slices_of(SCAN)
  for one in slices:
    one.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
  slices[0].PixelData = bytes(4_000_000)
  file = write(tmp_path, slices)[0]
  head, rest = file.read_bytes()[:132], file.read_bytes()[144:]  # (0002,0000) lies between
  length = {"zero": 0, "large": 70_000, "missing": None}[harm]
  element = b"" if length is None else b"\2\0\0\0UL\4\0" + length.to_bytes(4, "little")
  file.write_bytes(head + element + rest)
  assert find_series(tmp_path)[0].num_files == 3
  monkeypatch.setattr(deflated, "MAX_UNPACKED_BYTES", 2 << 20)
  with pytest.raises(UserError, match=r"0\.dcm: unpacks to more than 2 MiB"):
    find_series(tmp_path)


def test_a_zip_that_may_not_be_read_is_not_called_damaged(tmp_path, unreadable):
  write(tmp_path / "scan", slices_of(SCAN))
  unreadable(zip_folder(tmp_path / "x.zip", ["1", "2", "3"], tmp_path / "scan"))
  with pytest.raises(UserError, match=r"x\.zip: cannot be read \(Permission denied\)"):
    find_series(tmp_path / "x.zip")


def test_damaged_encrypted_and_ambiguous_zips_are_refused(tmp_path):
  write(tmp_path / "scan", slices_of(SCAN))
  path = zip_folder(tmp_path / "x.zip", ["1", "2", "3"], tmp_path / "scan")
  whole = path.read_bytes()
  for data, complaint in (
    (whole[:-100], "not a readable zip"),
    (b"", "not a readable zip"),
    (whole[:300] + bytes(200) + whole[500:], "damaged in the zip"),
    (_mark_encrypted(whole), "is encrypted"),
    (_add_duplicate(whole), "holds 1 twice"),
  ):
    path.write_bytes(data)
    with pytest.raises(UserError, match=complaint):
      find_series(path)


def _mark_encrypted(data: bytes) -> bytes:
  """Marks the first entry of the directory as encrypted."""
  at = data.index(b"PK\x01\x02") + 8
  return data[:at] + b"\x01" + data[at + 1 :]


def _add_duplicate(data: bytes) -> bytes:
  stream = io.BytesIO(data)
  with zipfile.ZipFile(stream, "a") as archive:
    archive.writestr("./1", b"")
  return stream.getvalue()
