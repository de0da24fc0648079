"""What scanners, archives and anonymisers write beside the rules, and harms nothing: no alarm."""

import zipfile
from functools import partial

import numpy as np
import pytest
from pydicom import DataElement, config
from pydicom.dataset import Dataset

from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.dicom.read import read_dicom, survey_files
from tests.written_dicom import setting, slices_of, write

SCAN = Volume(
  np.random.default_rng(3).permutation(120).reshape(6, 5, 4).astype(np.int16) - 60,
  np.diag([-0.8, -0.7, 2.5, 1]),
)


def set_all(slices, **tags):
  for k in range(len(slices)):
    setting(k, **tags)(slices)


def number(slices, numbers):
  for one, value in zip(slices, numbers, strict=True):
    one.InstanceNumber = value


def write_raw(slices, name, vr, value):
  for one in slices:
    one[name] = DataElement(name, vr, value, validation_mode=config.IGNORE)


def add_overlay(slices):
  """Sets the bits above the 12 of the pixel, in which old scanners keep an overlay."""
  for one in slices:
    pixels = np.frombuffer(one.PixelData, "<u2") | (np.arange(30, dtype=np.uint16) % 16 << 12)
    one.PixelData = pixels.astype("<u2").tobytes()
    one.BitsStored, one.HighBit, one.PixelRepresentation = 12, 11, 0


def add_private_tags(slices):
  for one in slices:
    block = one.private_block(0x0019, "GEMS_ACQU_01", create=True)
    block.add_new(0x02, "SL", 912)
    block.add_new(0x03, "UN", b"\x00\xff")


def round_positions(slices):
  for k, one in enumerate(slices):
    one.ImagePositionPatient[2] = str(round(2.5 * k + 0.03 * (-1) ** k, 2))


def remove_sop_class(slices):
  for one in slices:
    one.file_meta.MediaStorageSOPClassUID = one.SOPClassUID
    del one.SOPClassUID


def add_sequence(slices):
  item = Dataset()
  item.ReferencedSOPInstanceUID = "1.2.3"
  for one in slices:
    one.ReferencedImageSequence = [item, item]


@pytest.mark.parametrize(
  "change",
  [
    partial(number, numbers=[4, 3, 2, 1]),
    partial(number, numbers=[1, 1, 1, 1]),
    partial(number, numbers=[10, 20, 40, 80]),
    partial(number, numbers=[None] * 4),
    partial(set_all, SeriesNumber=None),
    partial(set_all, SeriesInstanceUID=None),
    partial(set_all, StudyInstanceUID=None),
    setting(2, StudyInstanceUID="1.9"),
    lambda slices: [setting(k, StudyInstanceUID=f"1.9.{k}")(slices) for k in range(4)],
    partial(set_all, PhotometricInterpretation="MONOCHROME1"),
    remove_sop_class,
    partial(set_all, ImageType=None),
    partial(set_all, ImageType=["DERIVED", "SECONDARY", "AXIAL", "AVERAGE"]),
    partial(set_all, SliceThickness=""),
    partial(set_all, SliceThickness=None),
    partial(set_all, SliceThickness="5"),  # overlapping slices
    partial(set_all, SpacingBetweenSlices="-2.5"),
    partial(set_all, NumberOfFrames=1),
    partial(set_all, WindowCenter=["40", "300"], WindowWidth=["400", "1500"]),
    partial(set_all, SpecificCharacterSet="ISO_IR 192"),
    partial(set_all, BitsStored=12, HighBit=11, PixelRepresentation=0),
    partial(set_all, PixelPaddingValue=-2000),
    partial(set_all, PixelPaddingValue=0),  # the value of air, which some scanners declare
    partial(set_all, ConvolutionKernel=["Br38f", "3"]),
    partial(write_raw, name="PixelSpacing", vr="DS", value=["7.0e-1", " 0.80 "]),
    partial(write_raw, name="RescaleIntercept", vr="DS", value="-1024.000000 "),
    partial(write_raw, name="SeriesInstanceUID", vr="UI", value="1.2.03"),  # a leading zero
    add_overlay,
    add_private_tags,
    add_sequence,
    round_positions,
  ],
)
def test_tags_that_harm_nothing(change, tmp_path, capsys, caplog):
  slices = slices_of(SCAN)
  change(slices)
  write(tmp_path, slices)
  survey = survey_files(tmp_path)
  assert (len(survey.series), survey.damaged, +survey.skipped) == (1, {}, {})
  np.testing.assert_array_equal(read_dicom(tmp_path).volume.array, SCAN.array)
  assert capsys.readouterr() == ("", "")
  assert not [one for one in caplog.records if one.levelname != "INFO"]


@pytest.mark.parametrize(
  "name",
  ["{k}", "IM{k:08d}", "a/b/c/{k}.DCM", "{k}.ima", "{k}.anything", "1.2.{k}", "ä ö/{k} .dcm"],
)
@pytest.mark.parametrize("packed", [True, False])
def test_names_that_harm_nothing(name, packed, tmp_path):
  files = write(tmp_path / "written", slices_of(SCAN))
  if packed:
    path = tmp_path / "x.ZIP"
    with zipfile.ZipFile(path, "w") as archive:
      archive.writestr("a/", b"")
      archive.comment = b"packed by somebody"
      for k, file in enumerate(files):
        archive.write(file, name.format(k=k).replace("/", "\\" if k else "/"))
  else:
    path = tmp_path / "scan"
    for k, file in enumerate(files):
      target = path / name.format(k=k)
      target.parent.mkdir(parents=True, exist_ok=True)
      file.rename(target)
  np.testing.assert_array_equal(read_dicom(path).volume.array, SCAN.array)
