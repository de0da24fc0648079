"""Slices that drop out of a series because a tag of theirs is damaged."""

import numpy as np
import pytest
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.dicom.read import find_series, read_dicom, survey_files
from tests.written_dicom import (
  assert_anonymous,
  enhanced,
  moving,
  setting,
  slices_of,
  write,
  write_volume,
)

SCAN = Volume(np.arange(60, dtype=np.int16).reshape(5, 4, 3), np.diag([-0.8, -0.7, 2.5, 1]))
DAMAGE = [
  ({"Modality": "CS"}, "of modality CS, but in one series with 2 CT images"),
  ({"Modality": "A B"}, "of an unknown modality, but in one series"),
  ({"Modality": None}, "it has no Modality"),
  ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.255"}, "capture or report, but in one series"),
  ({"SOPClassUID": MRImageStorage}, "capture or report, but in one series"),
  ({"SOPClassUID": "1.3.12.2.1107.5.9.1"}, "capture or report, but in one series"),
  ({"Modality": "CS", "SeriesInstanceUID": None}, "its SOP class is that of the CT images beside"),
  (
    {"Modality": "CS", "SOPClassUID": "1", "SeriesInstanceUID": None},
    "without a SeriesInstanceUID",
  ),
  ({"SeriesInstanceUID": "1.2.7", "SeriesNumber": None}, "alone in its series"),
  ({"SeriesInstanceUID": "1.2.7", "ImagePositionPatient": None}, "alone in its series"),
  ({"SeriesInstanceUID": "1.2.7", "StudyInstanceUID": None}, "alone in its series"),
  ({"SeriesInstanceUID": "1.2.7"}, "alone in its series, but at a free place among the slices"),
  ({"SeriesInstanceUID": ""}, "without a series, but at a free place among the slices"),
  ({"SeriesInstanceUID": None}, "without a series, but at a free place among the slices"),
  (
    {"SeriesInstanceUID": None, "StudyInstanceUID": "1.21", "SeriesNumber": None},
    "without a series, but at a free place among the slices",
  ),
]


@pytest.mark.parametrize(("k", "series_uid"), [(1, None), (2, "1.2.3")])
@pytest.mark.parametrize(("tags", "complaint"), DAMAGE)
def test_a_slice_of_damaged_kind_is_missed(k, tags, complaint, series_uid, tmp_path):
  write_volume(tmp_path, SCAN, change=setting(k, **tags))
  with pytest.raises(UserError) as refused:
    read_dicom(tmp_path, series_uid=series_uid)
  assert complaint in str(refused.value)
  assert f"{k}.dcm: " in str(refused.value)
  assert_anonymous(str(refused.value))


def test_every_slice_that_dropped_out_is_counted(tmp_path):
  slices = slices_of(Volume(np.zeros((5, 4, 9), np.int16), SCAN.affine))
  for k in (6, 7, 8):
    slices[k].SeriesInstanceUID = f"1.9.{k}"
  write(tmp_path, slices)
  with pytest.raises(UserError, match=r"alone in its series.*\(and 2 more such files\)"):
    read_dicom(tmp_path)


@pytest.mark.parametrize(
  "tags",
  [
    {"SeriesNumber": 5, "SeriesInstanceUID": "1.2.7"},  # a test shot
    {"StudyInstanceUID": "1.9", "SeriesInstanceUID": "1.2.7"},
    {"Rows": 2, "Columns": 10, "SeriesInstanceUID": "1.2.7"},
    {"PixelSpacing": [1, 1], "SeriesInstanceUID": "1.2.7"},
    {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1], "SeriesInstanceUID": "1.2.7"},
    {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
    {"SOPClassUID": SecondaryCaptureImageStorage},
    {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.67", "Modality": "SR"},
    {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66.4", "Modality": "SEG"},
    {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.11.1", "Modality": None},
    {"Modality": "MR", "SeriesInstanceUID": "1.2.8"},
    {"SOPClassUID": "1.3.12.2.1107.5.9.1", "SeriesInstanceUID": "1.2.8"},
  ],
)
def test_other_images_of_the_study_are_no_damage(tags, tmp_path):
  write_volume(tmp_path / "scan", SCAN)
  (other,) = slices_of(Volume(SCAN.array[:, :, :1], SCAN.affine))
  moving(0, 20)([other])
  for name, value in tags.items():
    delattr(other, name) if value is None else setattr(other, name, value)
  write(tmp_path / "other", [other])
  assert survey_files(tmp_path).damaged == {}
  np.testing.assert_array_equal(read_dicom(tmp_path).volume.array, SCAN.array)


def test_a_single_image_at_a_slices_place_is_no_lost_slice(tmp_path):
  write_volume(tmp_path / "scan", SCAN)
  write(tmp_path / "other", slices_of(SCAN, uid="1.2.7")[1:2])
  np.testing.assert_array_equal(read_dicom(tmp_path).volume.array, SCAN.array)


def test_series_of_single_images_alone_are_listed(tmp_path):
  for k, one in enumerate(slices_of(SCAN)):
    one.SeriesInstanceUID = f"1.2.{k}"
    write(tmp_path / str(k), [one])
  assert len(find_series(tmp_path)) == 3
  with pytest.raises(UserError, match="3 CT series, one is needed"):
    read_dicom(tmp_path)


def test_a_multi_frame_copy_is_another_series(tmp_path):
  write_volume(tmp_path / "single", SCAN)
  write(tmp_path / "frames", [enhanced(SCAN, uid="1.2.7")])
  found = survey_files(tmp_path)
  assert (len(found.series), found.damaged) == (2, {})
  np.testing.assert_array_equal(read_dicom(tmp_path, series_uid="1.2.7").volume.array, SCAN.array)


@pytest.mark.parametrize("k", [0, 4, 8])
def test_a_lost_slice_of_a_tilted_series_is_missed(k, tmp_path):
  slices = slices_of(Volume(np.zeros((5, 4, 9), np.int16), SCAN.affine))
  for i in range(9):
    moving(i, i * 2.5 * np.tan(np.radians(15)), axis=1)(slices)
  slices[k].SeriesInstanceUID = "1.2.7"
  write(tmp_path, slices)
  with pytest.raises(UserError, match=rf"{k}\.dcm: alone in its series, but at a free place"):
    read_dicom(tmp_path)


def test_an_image_sideways_of_a_tilted_series_is_not_of_it(tmp_path):
  slices = slices_of(Volume(np.zeros((5, 4, 9), np.int16), SCAN.affine))
  for i in range(8):
    moving(i, i * 2.5 * np.tan(np.radians(15)), axis=1)(slices)
  slices[8].SeriesInstanceUID = "1.2.7"  # straight above the first one
  write(tmp_path, slices)
  assert read_dicom(tmp_path).volume.shape == (5, 4, 8)


@pytest.mark.parametrize(
  ("tag", "words"),
  [
    ("StudyInstanceUID", "of another study"),
    ("FrameOfReferenceUID", "in another frame of reference"),
  ],
)
def test_two_scans_under_one_uid_are_not_read_as_one(tag, words, tmp_path):
  slices = slices_of(Volume(np.zeros((5, 4, 6), np.int16), SCAN.affine))
  for k, one in enumerate(slices):
    setattr(one, tag, "1.9" if k > 3 else "1.8")
  write(tmp_path, slices)
  complaint = rf"4\.dcm: {words} than .*0\.dcm.*: these are several scans.*\(and 1 more"
  with pytest.raises(UserError, match=complaint):
    read_dicom(tmp_path)


@pytest.mark.parametrize("frames", [["1.1", "1.2", "1.3"], ["1.1", "1.1", ""], ["", "", ""]])
def test_a_frame_of_reference_of_one_slice_alone_is_no_other_scan(frames, tmp_path):
  """As of an anonymiser that draws one for each file, or forgets some."""
  slices = slices_of(SCAN)
  for one, uid in zip(slices, frames, strict=True):
    one.FrameOfReferenceUID = uid
  write(tmp_path, slices)
  np.testing.assert_array_equal(read_dicom(tmp_path).volume.array, SCAN.array)
