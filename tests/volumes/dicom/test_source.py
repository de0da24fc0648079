import numpy as np
import pydicom

from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.dicom.read import choose_series, read_dicom, survey_files
from attn_unet_jax.volumes.dicom.source import read_source
from tests.dicom_sources import ORDER, make_affine, read_both, write_source
from tests.written_dicom import IDENTITY, assert_refused, write_volume

SCAN = Volume(np.arange(60, dtype=np.int16).reshape(5, 4, 3), make_affine("plain"))


def read(folder):
  return read_source(choose_series(survey_files(folder)))


def test_slices_stand_in_the_order_of_the_volume(tmp_path):
  source = read(write_source(tmp_path / "a", "shuffled"))
  assert source.size == (11, 9, 7)
  assert [int(one.place.file.stem) for one in source.slices] == [ORDER.index(k) for k in range(7)]
  for one in source.slices:
    tags = pydicom.dcmread(one.place.file)
    assert (one.sop_class, one.sop_instance) == (tags.SOPClassUID, tags.SOPInstanceUID)
  assert source.missing == ()


def test_patient_and_study_are_read_and_what_is_no_valid_value_is_left_empty(tmp_path):
  _, source = read_both(write_source(tmp_path / "a", "plain"))
  common = source.common
  assert str(common.PatientName) == IDENTITY["PatientName"]
  assert common.PatientID == IDENTITY["PatientID"]
  assert common.AccessionNumber == IDENTITY["AccessionNumber"]
  assert common.PatientBirthDate == ""  # "03-Feb-1951" is no date
  assert (common.StudyInstanceUID, common.SeriesInstanceUID) == ("1.2", "1.2.3")
  assert common.SeriesNumber == 1004
  assert "SeriesDescription" not in common  # which a person wrote


def test_names_of_another_alphabet_become_utf_8(tmp_path):
  write_volume(
    tmp_path, SCAN, SpecificCharacterSet="ISO_IR 144", PatientName="Пациент^Иван", PatientSex="X"
  )
  common = read(tmp_path).common
  assert str(common.PatientName) == "Пациент^Иван"
  assert common.SpecificCharacterSet == "ISO_IR 192"
  assert common.PatientSex == ""


def test_of_several_values_where_one_belongs_none_is_taken(tmp_path):
  write_volume(tmp_path, SCAN, PatientID=["a", "b"])
  assert read(tmp_path).common.PatientID == ""


def test_uids_that_were_lost_are_new_and_the_same_every_time(tmp_path):
  write_source(tmp_path / "a", "bare")
  first, second = read(tmp_path / "a"), read(tmp_path / "a")
  assert first.missing == ("StudyInstanceUID", "FrameOfReferenceUID")
  assert first.common == second.common
  assert len({first.common[name].value for name in first.missing}) == 2
  assert len({one.sop_instance for one in first.slices}) == 7


def test_slices_that_cannot_be_told_apart_are_refused(tmp_path):
  write_volume(tmp_path / "a", SCAN, SOPInstanceUID="1.2.5")
  assert_refused(read, tmp_path / "a", "several slices share a SOPInstanceUID", "NIfTI")
  read_dicom(tmp_path / "a")  # which is enough for a mask in NIfTI


def test_a_slice_without_a_uid_is_named(tmp_path):
  file = write_volume(tmp_path / "a", SCAN)[1]
  tags = pydicom.dcmread(file)
  del tags.SOPInstanceUID, tags.file_meta.MediaStorageSOPInstanceUID
  pydicom.dcmwrite(file, tags, enforce_file_format=False)
  assert_refused(read, tmp_path / "a", "1.dcm: has no SOPInstanceUID", "NIfTI")
