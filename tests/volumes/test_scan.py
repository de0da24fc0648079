import zipfile

import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.nifti import write_nifti
from attn_unet_jax.volumes.scan import find_dicom_scans, is_dicom_scan, read_scan
from tests.written_dicom import write_volume

SCAN = Volume(np.arange(60, dtype=np.int16).reshape(5, 4, 3), np.diag([-0.8, -0.7, 2.5, 1]))


@pytest.fixture
def folder(tmp_path):
  """Writes one scan as NIfTI, as a nested DICOM folder and as a zip, and a folder without scans."""
  write_nifti(tmp_path / "a.nii.gz", SCAN)
  files = write_volume(tmp_path / "b" / "study" / "series", SCAN)
  with zipfile.ZipFile(tmp_path / "c.ZIP", "w") as archive:
    for file in files:
      archive.write(file, file.name)
  (tmp_path / "notes").mkdir()
  (tmp_path / "notes" / "1.txt").write_text("no scan")
  return tmp_path


def list_paths(folder):
  return {name: survey.path for name, survey in find_dicom_scans(folder).scans.items()}


def test_the_same_scan_from_every_form(folder):
  for name, is_dicom in (("a.nii.gz", False), ("b", True), ("c.ZIP", True)):
    read = read_scan(folder / name)
    np.testing.assert_array_equal(read.array, SCAN.array)
    np.testing.assert_allclose(read.affine, SCAN.affine, atol=1e-6)
    assert is_dicom_scan(folder / name) == is_dicom


def test_scans_of_a_folder_are_its_zips_and_dicom_folders(folder):
  assert list_paths(folder) == {"b": folder / "b", "c": folder / "c.ZIP"}
  leaf = folder / "b" / "study" / "series"
  assert list_paths(leaf) == {"series": leaf}
  assert list_paths(folder / "notes") == {}


def test_two_scans_of_one_name_are_refused(folder):
  write_volume(folder / "c", SCAN, uid="1.2.4")
  with pytest.raises(UserError, match="has the same name"):
    find_dicom_scans(folder)


def test_a_single_slice_and_a_series_of_nifti_are_refused(folder):
  with pytest.raises(UserError, match=r"0\.dcm: a single DICOM file; name the folder"):
    read_scan(folder / "b" / "study" / "series" / "0.dcm")
  with pytest.raises(UserError, match=r"a\.nii\.gz: a file, which has no DICOM series 1\.2"):
    read_scan(folder / "a.nii.gz", series_uid="1.2")
