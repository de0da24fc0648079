"""DICOM-SEG is read back by highdicom and by dcmqi, and is where the NIfTI mask is."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest

from attn_unet_jax import __version__
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.dicom.read import choose_series, survey_files
from attn_unet_jax.volumes.dicom.source import read_source
from attn_unet_jax.volumes.dicom.write_segmentation import check_frames, write_segmentation
from attn_unet_jax.volumes.dicom.write_structures import write_structures
from tests.conftest import SHARED
from tests.dicom_sources import (
  LPS_TO_RAS,
  NAMES,
  VARIANTS,
  assert_same_points,
  find_points,
  make_mask,
  negate_columns,
  read_both,
  read_frame_points,
  read_nifti_points,
  write_source,
)
from tests.written_dicom import enhanced, write


@pytest.fixture
def highdicom():
  return pytest.importorskip("highdicom")


def write_for(path: Path, folder: Path, mask=None, names=NAMES):
  image, source = read_both(path)
  mask = Volume(make_mask(image.shape) if mask is None else mask, image.affine)
  write_segmentation(folder / "seg.dcm", mask.array, source, names)
  return folder / "seg.dcm", mask, source


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_voxel_lies_where_it_lies_in_the_nifti_mask(highdicom, variant, tmp_path):
  file, mask, _ = write_for(write_source(tmp_path / "a", variant), tmp_path)
  for value in (1, 2, 3):
    assert_same_points(
      read_frame_points(file, value), read_nifti_points(mask, value, tmp_path), 0.05
    )
  if variant != "drifting":  # which is no grid of right angles, and is not put together there
    read = highdicom.seg.segread(file).get_volume(combine_segments=True)
    for value in (1, 2, 3):
      points = find_points(read.array == value, LPS_TO_RAS @ read.affine)
      assert_same_points(points, find_points(mask.array == value, mask.affine))


@pytest.mark.parametrize("variant", ["plain", "columns negated", "shuffled", "oblique"])
def test_dcmqi_reads_the_same(highdicom, variant, tmp_path):
  dcmqi = pytest.importorskip("dcmqi")
  file, mask, _ = write_for(write_source(tmp_path / "a", variant), tmp_path)
  read_by_dcmqi(dcmqi, file, mask, tmp_path)


def test_dcmqi_reads_a_single_class(highdicom, tmp_path):
  dcmqi = pytest.importorskip("dcmqi")
  path, one = write_source(tmp_path / "a", "plain"), (make_mask() == 1).astype(np.uint8)
  file, mask, _ = write_for(path, tmp_path, one, {"background": 0, "pancreas": 1})
  read_by_dcmqi(dcmqi, file, mask, tmp_path, (1,))


def read_by_dcmqi(dcmqi, file: Path, mask: Volume, folder: Path, values=(1, 2)) -> None:
  program = Path(dcmqi.__file__).parent / "bin" / "segimage2itkimage"
  (folder / "itk").mkdir()
  done = subprocess.run(
    [program, "--inputDICOM", file, "--outputDirectory", folder / "itk", "--outputType", "nifti"],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  for value in values:
    image = nib.load(folder / "itk" / f"{value}.nii.gz")
    points = find_points(np.asarray(image.dataobj), image.affine)
    assert_same_points(points, find_points(mask.array == value, mask.affine))


def test_every_segment_says_what_it_is_and_what_made_it(highdicom, tmp_path):
  file, _, source = write_for(write_source(tmp_path / "a", "plain"), tmp_path)
  seg = highdicom.seg.segread(file)
  assert [one.segment_label for one in seg.SegmentSequence] == list(NAMES)[1:]
  types = [one.segmented_property_type for one in seg.SegmentSequence]
  assert [one.meaning for one in types] == ["Pancreas", "Kidney", "Tissue"]
  (side,) = types[1].SegmentedPropertyTypeModifierCodeSequence
  assert (side.CodeValue, side.CodeMeaning) == ("7771000", "Left")
  assert len({tuple(one.RecommendedDisplayCIELabValue) for one in seg.SegmentSequence}) == 3
  for one in seg.SegmentSequence:
    algorithm = one.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("attn_unet_jax", __version__)
    assert one.SegmentAlgorithmType == "AUTOMATIC"
  assert seg.ManufacturerModelName == "attn_unet_jax"
  assert seg.segmentation_type.value == "BINARY"
  assert seg.StudyInstanceUID == "1.2"
  assert seg.FrameOfReferenceUID == "1.2.9"
  assert str(seg.PatientName) == "Zyxwell^Quilla"
  (referred,) = seg.ReferencedSeriesSequence
  assert referred.SeriesInstanceUID == "1.2.3"
  assert {one.ReferencedSOPInstanceUID for one in referred.ReferencedInstanceSequence} == {
    one.sop_instance for one in source.slices
  }
  measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
  assert float(measures.SpacingBetweenSlices) == pytest.approx(2.5)  # not the wrong tag's 4


@pytest.mark.parametrize("variant", ["shuffled", "frames"])
def test_every_frame_refers_to_its_slice(highdicom, variant, tmp_path):
  file, _, source = write_for(write_source(tmp_path / "a", variant), tmp_path)
  for frame in pydicom.dcmread(file).PerFrameFunctionalGroupsSequence:
    position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
    (image,) = frame.DerivationImageSequence[0].SourceImageSequence
    number = image.get("ReferencedFrameNumber")
    (place,) = [
      one.place
      for one in source.slices
      if one.sop_instance == image.ReferencedSOPInstanceUID
      and (one.place.frame is None or one.place.frame + 1 == number)
    ]
    np.testing.assert_allclose(place.position, position, atol=1e-3)


def test_a_mask_without_a_voxel_is_a_segmentation_of_one_empty_slice(highdicom, tmp_path, caplog):
  file, _, _ = write_for(
    write_source(tmp_path / "a", "plain"), tmp_path, np.zeros((11, 9, 7), np.uint8)
  )
  seg = highdicom.seg.segread(file)
  assert seg.number_of_segments == 3
  assert not seg.pixel_array.any()
  assert seg.NumberOfFrames == 3
  assert not caplog.records  # which a command would print


def test_slices_of_a_tilted_gantry_keep_their_places(highdicom, tmp_path):
  image, source = read_both(write_source(tmp_path / "a", "plain"))
  step = np.array([0, 0.6, 0])  # per slice
  tilted = [
    one._replace(place=dataclasses.replace(one.place, position=one.place.position + k * step))
    for k, one in enumerate(source.slices)
  ]
  source = dataclasses.replace(source, slices=tuple(tilted))
  write_segmentation(tmp_path / "seg.dcm", make_mask(), source, NAMES)
  affine = image.affine.copy()
  affine[1, 2] -= 0.6  # LPS to RAS
  assert_same_points(
    read_frame_points(tmp_path / "seg.dcm", 1), find_points(make_mask() == 1, affine)
  )


def test_a_uid_that_is_not_allowed_is_referred_to_as_it_is(highdicom, tmp_path):
  _, source = read_both(write_source(tmp_path / "a", "plain"))
  with pydicom.config.disable_value_validation():
    source.common.StudyInstanceUID = "1.2.03"
    slices = [one._replace(sop_instance=f"1.05.{k}") for k, one in enumerate(source.slices)]
    source = dataclasses.replace(source, slices=tuple(slices))
  write_segmentation(tmp_path / "seg.dcm", make_mask(), source, NAMES)
  write_structures(tmp_path / "rt.dcm", make_mask(), source, NAMES)
  with pydicom.config.disable_value_validation():
    for name in ("seg.dcm", "rt.dcm"):
      tags = pydicom.dcmread(tmp_path / name)
      assert tags.StudyInstanceUID == "1.2.03"
      assert "1.05.6" in str(tags)


def test_files_of_several_frames_are_refused(tmp_path):
  image, _ = read_both(write_source(tmp_path / "a", "plain"))
  parts = [Volume(image.array[..., :3], image.affine), Volume(image.array[..., 3:], image.affine)]
  halves = [enhanced(part) for part in parts]
  for k, frame in enumerate(halves[1].PerFrameFunctionalGroupsSequence):
    position = image.affine @ [0, 0, 3 + k, 1] * (-1, -1, 1, 1)
    frame.PlanePositionSequence[0].ImagePositionPatient = [f"{x:.4f}" for x in position[:3]]
  write(tmp_path / "b", halves)
  source = read_source(choose_series(survey_files(tmp_path / "b")))
  with pytest.raises(
    UserError, match=r"b: the series has 2 files of a class with frames.*RTSTRUCT"
  ):
    check_frames(source)


def test_the_class_says_whether_a_file_has_frames_not_their_number(tmp_path):
  """So highdicom reads it: its own errors would come after the scan was segmented."""
  enhanced_class = "1.2.840.10008.5.1.4.1.1.2.1"
  _, source = read_both(write_source(tmp_path / "a", "plain"))
  slices = tuple(one._replace(sop_class=enhanced_class) for one in source.slices)
  with pytest.raises(UserError, match="files of a class with frames"):
    check_frames(dataclasses.replace(source, slices=slices))
  file = source.slices[0].place.file
  slices = tuple(
    one._replace(place=dataclasses.replace(one.place, file=file)) for one in source.slices
  )
  with pytest.raises(UserError, match="is not of the class Enhanced CT"):
    check_frames(dataclasses.replace(source, slices=slices))
  check_frames(source)


def test_without_highdicom_the_extra_is_named(tmp_path, monkeypatch):
  _, source = read_both(write_source(tmp_path / "a", "plain"))
  monkeypatch.setitem(sys.modules, "highdicom", None)
  with pytest.raises(UserError, match=r"dicom-seg needs highdicom.*pip install -e '\.\[dicom\]'$"):
    write_segmentation(tmp_path / "seg.dcm", make_mask(), source, NAMES)


def test_a_mask_of_another_grid_is_a_fault_of_the_program(highdicom, tmp_path):
  _, source = read_both(write_source(tmp_path / "a", "plain"))
  with pytest.raises(ValueError, match=r"\(9, 11, 7\)"):
    write_segmentation(tmp_path / "seg.dcm", make_mask((9, 11, 7)), source, NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("is_negated", [False, True])
@pytest.mark.skipif(not SHARED.exists(), reason="no ../shared/data")
def test_the_real_series(highdicom, is_negated, tmp_path):
  dcmqi = pytest.importorskip("dcmqi")
  series = SHARED / "ct_dicom" / "series"
  if is_negated:
    series = negate_columns(series, tmp_path / "negated")
  image, source = read_both(series)
  mask = np.zeros(image.shape, np.uint8)
  mask[200:300, 150:260, 3:9], mask[310:350, 150:260, 5:9] = 1, 2
  file, mask, _ = write_for(series, tmp_path, mask)
  assert source.missing == ("StudyInstanceUID", "SeriesInstanceUID")
  for value in (1, 2):
    points = read_frame_points(file, value)
    assert_same_points(points, read_nifti_points(mask, value, tmp_path))
  read_by_dcmqi(dcmqi, file, mask, tmp_path)
