"""RTSTRUCT is filled again by another library, and is where the NIfTI mask is."""

import numpy as np
import pydicom
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.dicom.write_structures import write_structures
from tests.conftest import SHARED
from tests.dicom_sources import (
  NAMES,
  SHAPE,
  VARIANTS,
  assert_same_points,
  fill_class,
  find_points,
  make_mask,
  negate_columns,
  read_both,
  read_nifti_points,
  write_source,
)


@pytest.mark.parametrize("variant", [one for one in VARIANTS if one != "zip"])
def test_filled_contours_lie_where_the_nifti_mask_lies(variant, tmp_path):
  path = write_source(tmp_path / "a", variant)
  image, source = read_both(path)
  mask = Volume(make_mask(), image.affine)
  write_structures(tmp_path / "rt.dcm", mask.array, source, NAMES)
  tags = pydicom.dcmread(tmp_path / "rt.dcm")
  for value in (1, 2, 3):
    found = fill_class(tags, value, path, SHAPE)
    assert_same_points(found, read_nifti_points(mask, value, tmp_path), 0.05)


def test_contours_of_a_zip_are_those_of_its_folder(tmp_path):
  contours = []
  write_source(tmp_path / "a", "zip")
  for path in (tmp_path / "a", tmp_path / "a.zip"):
    write_structures(tmp_path / "rt.dcm", make_mask(), read_both(path)[1], NAMES)
    contours.append(pydicom.dcmread(tmp_path / "rt.dcm").ROIContourSequence)
  assert contours[0] == contours[1]


def test_structures_name_their_classes_and_refer_to_every_slice(tmp_path):
  _, source = read_both(write_source(tmp_path / "a", "plain"))
  write_structures(tmp_path / "rt.dcm", make_mask(), source, NAMES)
  tags = pydicom.dcmread(tmp_path / "rt.dcm")
  assert [one.ROIName for one in tags.StructureSetROISequence] == list(NAMES)[1:]
  observed = tags.RTROIObservationsSequence
  assert [one.RTROIInterpretedType for one in observed] == ["ORGAN", "ORGAN", ""]
  assert observed[0].RTROIIdentificationCodeSequence[0].CodeValue == "15776009"
  assert "ContourSequence" not in tags.ROIContourSequence[2]
  assert len({tuple(one.ROIDisplayColor) for one in tags.ROIContourSequence}) == 3
  assert (tags.Modality, tags.StudyInstanceUID, tags.ApprovalStatus) == (
    "RTSTRUCT",
    "1.2",
    "UNAPPROVED",
  )
  (frame,) = tags.ReferencedFrameOfReferenceSequence
  assert frame.FrameOfReferenceUID == "1.2.9"
  (series,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
  assert series.SeriesInstanceUID == "1.2.3" != tags.SeriesInstanceUID
  referred = [one.ReferencedSOPInstanceUID for one in series.ContourImageSequence]
  assert referred == [one.sop_instance for one in source.slices]


def test_a_path_that_cannot_be_written_is_named(tmp_path):
  _, source = read_both(write_source(tmp_path / "a", "plain"))
  (tmp_path / "file").write_text("")
  with pytest.raises(UserError, match=r"file/rt\.dcm: cannot be written"):
    write_structures(tmp_path / "file" / "rt.dcm", make_mask(), source, NAMES)


def test_a_contour_longer_than_64_kib_is_read_back(tmp_path):
  """An explicit VR has no room for the length of its text."""
  path = write_source(tmp_path / "a", "plain")
  _, source = read_both(path)
  place = source.slices[0].place
  wide = [
    one._replace(place=type(place)(**{**vars(one.place), "size": (1400, 3)}))
    for one in source.slices
  ]
  source = type(source)(source.common, tuple(wide), ())
  mask = np.zeros((1400, 3, 7), np.uint8)
  mask[::2, :, 3] = mask[:, 0, 3] = 1  # a comb
  write_structures(tmp_path / "rt.dcm", mask, source, NAMES)
  tags = pydicom.dcmread(tmp_path / "rt.dcm")
  (contour,) = tags.ROIContourSequence[0].ContourSequence
  assert len("\\".join(map(str, contour.ContourData))) > 65_536
  assert_same_points(
    fill_class(tags, 1, path, (1400, 3)),
    find_points(mask, read_both(path)[0].affine),
  )


@pytest.mark.slow
@pytest.mark.parametrize("is_negated", [False, True])
@pytest.mark.skipif(not SHARED.exists(), reason="no ../shared/data")
def test_the_real_series(is_negated, tmp_path):
  series = SHARED / "ct_dicom" / "series"
  if is_negated:
    series = negate_columns(series, tmp_path / "negated")
  image, source = read_both(series)
  bones = (image.array > 150).astype(np.uint8)  # with many holes
  bones[..., 5:] = 0
  mask = Volume(bones, image.affine)
  write_structures(tmp_path / "rt.dcm", mask.array, source, NAMES)
  tags = pydicom.dcmread(tmp_path / "rt.dcm")
  found = fill_class(tags, 1, series, image.shape)
  assert_same_points(found, read_nifti_points(mask, 1, tmp_path))
