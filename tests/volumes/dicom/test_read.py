import itertools
import shutil
from functools import partial

import numpy as np
import pydicom
import pytest
from nibabel import orientations

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.dicom.read import read_dicom
from attn_unet_jax.volumes.nifti import read_nifti, write_nifti
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.shear import shear_degrees
from tests.conftest import SHARED
from tests.written_dicom import (
  assert_anonymous,
  assert_refused,
  moving,
  setting,
  slices_of,
  write,
  write_volume,
)

needs_real = pytest.mark.skipif(not SHARED.is_dir(), reason="no real scans beside the project")


def draw_ct(affine=None, shape=(7, 6, 5)) -> Volume:
  """Returns a scan with another value in every voxel, so that none can be mistaken."""
  array = np.random.default_rng(3).permutation(np.prod(shape)).reshape(shape) - 100
  affine = np.diag([-0.8, -0.7, 2.5, 1]) if affine is None else affine
  return Volume(array.astype(np.int16), affine)


SCAN = draw_ct(shape=(7, 6, 9))


def assert_same(a: Volume, b: Volume, atol: float = 1e-9) -> None:
  a, b = to_canonical(a), to_canonical(b)
  np.testing.assert_array_equal(a.array, b.array)
  np.testing.assert_allclose(a.affine, b.affine, atol=atol)


@pytest.fixture
def folder(tmp_path):
  return tmp_path / "scan"


# Real scans


@needs_real
@pytest.mark.parametrize("name", ["series", "series_jpeg2000"])
def test_a_real_series_equals_its_nifti(name):
  read = read_dicom(SHARED / "ct_dicom" / name)
  assert_same(read.volume, read_nifti(SHARED / "ct_dicom" / "expected.nii.gz"), atol=1e-3)
  assert read.volume.orientation == "LPS"
  assert read.instance_numbers == tuple(range(286, 266, -1))  # this scan goes downwards
  assert read.tag_spacing_mm == 3.0  # thickness; the slices lie 2 mm apart
  assert read.volume.spacing[2] == 2.0


@needs_real
def test_file_names_and_their_order_do_not_matter(folder):
  files = sorted((SHARED / "ct_dicom" / "series").iterdir())
  folder.mkdir()
  for k, place in enumerate(np.random.default_rng(0).permutation(len(files))):
    shutil.copy(files[place], folder / f"{k:03d}")
  assert_same(read_dicom(folder).volume, read_nifti(SHARED / "ct_dicom" / "expected.nii.gz"), 1e-3)


@needs_real
def test_real_padding_is_air_and_spacing_is_that_of_positions():
  read = read_dicom(SHARED / "ct_dicom_3slice")  # beside a DICOM-SEG, passed over, and NRRD files
  assert read.volume.spacing == (0.8105, 0.8105, 1.0)
  assert read.tag_spacing_mm == 1.25
  assert read.volume.array[0, 0, 0] == -1000  # stored as -2000, which would be -3024 HU
  assert read.volume.array.min() == -1024


@needs_real
def test_a_real_tilted_series_is_refused_for_its_gaps_alone():
  with pytest.raises(UserError, match=r"ct_dicom_irregular: unequal gaps: 1\.081 mm") as refused:
    read_dicom(SHARED / "ct_dicom_irregular")
  for word in ("between 14.dcm", "15.dcm", "mostly 4.002 mm"):
    assert word in str(refused.value)
  for word in ("tilt", "sideways", "normal"):  # they lie in line: the tilt is no matter
    assert word not in str(refused.value)


# Geometry


@pytest.mark.parametrize("permutation", list(itertools.permutations(range(3))))
def test_all_48_orientations_come_back_exactly(permutation, tmp_path):
  for n, flips in enumerate(itertools.product((1, -1), repeat=3)):
    affine = np.eye(4)
    affine[:3, :3] = np.diag([0.5, 0.75, 2.5])[:, permutation] * flips
    affine[:3, 3] = -100.5, 20.25, 1000.0
    volume = draw_ct(affine)
    write_volume(tmp_path / str(n), volume)
    read = read_dicom(tmp_path / str(n)).volume
    assert_same(read, volume, atol=0)
    write_nifti(tmp_path / f"{n}.nii", read)
    assert_same(read_nifti(tmp_path / f"{n}.nii"), volume, atol=0)


@pytest.mark.parametrize("seed", range(20))
def test_oblique_scans_keep_their_place(seed, folder):
  rng = np.random.default_rng(seed)
  turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
  affine = np.eye(4)
  affine[:3, :3] = turn * rng.uniform(0.5, 5, size=3)
  affine[:3, 3] = rng.uniform(-500, 500, size=3)
  volume = draw_ct(affine)
  write_volume(folder, volume)
  read = read_dicom(folder).volume
  assert_same(read, volume, atol=1e-6)
  write_nifti(folder / "read.nii", read)
  assert_same(read_nifti(folder / "read.nii"), volume, atol=1e-4)  # its affine is float32


def test_axes_are_columns_rows_and_slices_upwards(folder):
  volume = draw_ct(np.diag([-0.8, -0.7, -2.5, 1]))  # slices written from the head down
  write_volume(folder, volume)
  read = read_dicom(folder)
  assert read.volume.orientation == "LPS"
  np.testing.assert_array_equal(read.volume.array, volume.array[:, :, ::-1])
  np.testing.assert_allclose(read.volume.affine[:3, 3], [0, 0, -10], atol=1e-12)
  assert read.instance_numbers == (5, 4, 3, 2, 1)
  assert orientations.aff2axcodes(read.volume.affine) == ("L", "P", "S")


def test_wrong_z_tags_are_not_used(folder):
  write_volume(folder, draw_ct(), SliceThickness="0.83", SpacingBetweenSlices="0.01")
  read = read_dicom(folder)
  assert read.volume.spacing == (0.8, 0.7, 2.5)
  assert read.tag_spacing_mm == 0.01


def test_positions_rounded_to_a_tenth_still_make_a_grid(folder):
  volume = draw_ct(np.diag([-0.8, -0.7, 1.25, 1]))
  slices = slices_of(volume)
  for one in slices:
    one.ImagePositionPatient[2] = round(float(one.ImagePositionPatient[2]), 1)
  write(folder, slices)
  assert read_dicom(folder).volume.spacing[2] == 1.25


def _add_tilt(slices, degrees=12):
  for k in range(len(slices)):
    moving(k, k * 2.5 * np.tan(np.radians(degrees)), axis=1)(slices)


@pytest.mark.parametrize("degrees", [-30, 2, 12])
def test_slices_of_a_tilted_gantry_form_a_sheared_grid(degrees, folder):
  slices = slices_of(SCAN)
  _add_tilt(slices, degrees)
  write(folder, slices[::-1])
  read = read_dicom(folder).volume
  affine = SCAN.affine.copy()
  affine[1, 2] = -2.5 * np.tan(np.radians(degrees))  # LPS to RAS
  assert_same(read, Volume(SCAN.array, affine), atol=1e-6)
  assert shear_degrees(read.grid) == pytest.approx(abs(degrees), abs=1e-3)


def _add_drift(slices):
  for k in range(9):
    moving(k, 0.01 * k * k)(slices)


def _add_near_duplicate(slices):
  slices.append(slices_of(SCAN)[1])
  moving(9, 0.005)(slices)


TURNED = [0.99985, 0.01745, 0, -0.01745, 0.99985, 0]  # by one degree


@pytest.mark.parametrize(
  ("change", "complaints"),
  [
    (partial(_add_tilt, degrees=50), ["50.0 degrees to their normal", "further than a gantry"]),
    (partial(_add_tilt, degrees=89.999), ["90.0 degrees to their normal"]),
    (moving(3, 2.0, axis=1), ["3.dcm lies 2.0 mm sideways of the line from 0.dcm to 8.dcm"]),
    (lambda s: (_add_tilt(s), moving(3, 2.0, axis=0)(s)), ["3.dcm lies 2.0 mm sideways"]),
    (lambda s: s.append(slices_of(SCAN)[1]), ["1 duplicate", "1.dcm and 9.dcm at 2.5 mm"]),
    (_add_near_duplicate, ["1 duplicate", "1.dcm and 9.dcm at 2.5 mm"]),
    (lambda s: s.pop(2), ["1 missing", "5.000 mm between 1.dcm (2.5 mm) and 2.dcm (7.5 mm)"]),
    (lambda s: (s.pop(2), s.pop(2)), ["2 missing", "7.500 mm between 1.dcm", "elsewhere 2.500 mm"]),
    (moving(8, 1.0), ["unequal gaps", "3.500 mm between 7.dcm", "mostly 2.500 mm"]),
    (_add_drift, ["gaps drift between 2.51 and 2.65 mm"]),
    (setting(3, Rows=7, Columns=6), ["1 of 9 slices", "size", "(6, 7) in 3.dcm, (7, 6) in most"]),
    (setting(1, PixelSpacing=[0.7, 0.9]), ["1 of 9 slices", "pixel spacing", "1.dcm"]),
    (
      setting(0, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]),
      ["1 of 9 slices", "orientation", "0.dcm"],
    ),
    (setting(1, ImageOrientationPatient=TURNED), ["1 of 9 slices", "orientation", "1.dcm"]),
    (setting(2, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), ["perpendicular", "2.dcm"]),
    (lambda s: s.__delitem__(slice(1, None)), ["0.dcm: a single slice"]),
    (setting(2, ImagePositionPatient=None), ["2.dcm: ImagePositionPatient"]),
    (setting(2, PixelSpacing=[0, 0.8]), ["2.dcm: PixelSpacing must be at least 1e-4"]),
    (setting(2, PixelSpacing=[1e-5, 1e-5]), ["2.dcm: PixelSpacing must be at least 1e-4"]),
    (setting(2, PixelSpacing=[1e12, 1e12]), ["2.dcm: PixelSpacing must be 2 numbers"]),
    (setting(2, ImagePositionPatient=[0, 0, 1e12]), ["2.dcm: ImagePositionPatient"]),
    (setting(2, PhotometricInterpretation="PALETTE COLOR"), ["2.dcm: holds colours"]),
    (setting(2, RescaleSlope=0), ["2.dcm: slope 0"]),
    (setting(2, SamplesPerPixel=3), ["2.dcm: holds colours, or several frames"]),
    (setting(2, NumberOfFrames=2), ["2.dcm: holds colours, or several frames"]),
  ],
)
def test_what_is_no_grid_is_refused_and_named(change, complaints, folder):
  write_volume(folder, SCAN, change=change)
  assert_refused(read_dicom, folder, *complaints)


# Values


def test_slope_intercept_and_type(folder, tmp_path):
  volume = draw_ct()
  write_volume(folder, volume, RescaleSlope="2", RescaleIntercept="-5")
  twice = read_dicom(folder).volume.array
  assert twice.dtype == np.int16
  np.testing.assert_array_equal(twice, (volume.array.astype(int) + 1024) * 2 - 5)
  write_volume(tmp_path / "half", volume, RescaleSlope="0.5")
  half = read_dicom(tmp_path / "half").volume.array
  assert half.dtype == np.float32
  np.testing.assert_array_equal(half, (volume.array + 1024) * np.float32(0.5) - 1024)
  write_volume(tmp_path / "large", volume, RescaleSlope="100")
  large = read_dicom(tmp_path / "large").volume.array
  assert large.dtype == np.float32
  np.testing.assert_array_equal(large, (volume.array.astype(np.float32) + 1024) * 100 - 1024)


def test_each_slice_has_its_own_intercept(folder):
  volume = draw_ct()
  write_volume(folder, volume, change=setting(3, RescaleIntercept=-1000))
  expected = volume.array.copy()
  expected[:, :, 3] += 24
  np.testing.assert_array_equal(read_dicom(folder).volume.array, expected)


@pytest.mark.parametrize(
  ("value", "limit", "low", "high"),
  [(-2000, None, -2000, -2000), (-2100, -1990, -2100, -1990), (-1990, -2100, -2100, -1990)],
)
def test_padding_becomes_air(value, limit, low, high, folder):
  array = draw_ct().array.copy()
  array[0, 0, :] = -2000 - 1024
  array[1, 0, :] = -1995 - 1024
  tags = {"PixelPaddingValue": value} | ({} if limit is None else {"PixelPaddingRangeLimit": limit})
  write_volume(folder, Volume(array, draw_ct().affine), **tags)
  stored = array.astype(int) + 1024
  expected = np.where((stored >= low) & (stored <= high), -1000, array)
  np.testing.assert_array_equal(read_dicom(folder).volume.array, expected)


def test_padding_with_a_tissues_value_is_left_alone(folder):
  write_volume(folder, draw_ct(), PixelPaddingValue=1024)  # 0 HU: water
  np.testing.assert_array_equal(read_dicom(folder).volume.array, draw_ct().array)


def _encode_with_gdcm(syntax):
  """Re-encodes a written file in place."""
  gdcm = pytest.importorskip("gdcm")

  def encode(file):
    reader, change = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax()
    reader.SetFileName(str(file))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(file))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()

  return encode


@pytest.mark.parametrize(
  "syntax",
  [
    *("JPEGLosslessProcess14", "JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless"),
    *(
      "RLELossless",
      "ImplicitVRLittleEndian",
      "ExplicitVRBigEndian",
      "DeflatedExplicitVRLittleEndian",
    ),
  ],
)
def test_every_lossless_encoding_gives_the_same_voxels(syntax, folder):
  volume = draw_ct(shape=(32, 24, 3))
  for file in write_volume(folder, volume):
    _encode_with_gdcm(syntax)(file)
  assert_same(read_dicom(folder).volume, volume)


@pytest.mark.parametrize("syntax", ["JPEG2000", "JPEGLSNearLossless"])
def test_lossy_encodings_give_nearly_the_same_voxels(syntax, folder):
  x, y, z = np.indices((32, 24, 3))
  volume = Volume((-1000 + 40 * x + 20 * y + 5 * z).astype(np.int16), draw_ct().affine)
  unsigned = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0}
  for file in write_volume(folder, volume, **unsigned):
    _encode_with_gdcm(syntax)(file)
  read = to_canonical(read_dicom(folder).volume)
  np.testing.assert_allclose(read.array, to_canonical(volume).array, atol=40)


def test_lossy_jpeg_of_12_bits_is_named(folder):
  unsigned = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0}
  for file in write_volume(folder, draw_ct(shape=(32, 24, 3)), **unsigned):
    _encode_with_gdcm("JPEGExtendedProcess2_4")(file)
  with pytest.raises(UserError, match=r"0\.dcm: stored as JPEG Extended.*decompress"):
    read_dicom(folder)


def test_an_encoding_that_is_not_read_is_named(folder):
  files = write_volume(folder, draw_ct())
  htj2k = pydicom.dcmread(files[1])
  htj2k.file_meta.TransferSyntaxUID = pydicom.uid.HTJ2KLossless
  htj2k.PixelData = pydicom.encaps.encapsulate([b"1234"])
  htj2k.save_as(files[1])
  with pytest.raises(UserError, match=r"1\.dcm: stored as High-Throughput JPEG 2000.*decompress"):
    read_dicom(folder)


def _shift_left(slices):
  """Stores 12 bits as the upper ones of 16."""
  for one in slices:
    pixels = np.frombuffer(one.PixelData, "<u2") << 4
    one.PixelData = pixels.astype("<u2").tobytes()
    one.BitsStored, one.HighBit, one.PixelRepresentation = 12, 15, 0


def test_pixels_in_the_upper_bits_are_named(folder):
  write_volume(folder, draw_ct(), change=_shift_left)
  assert_refused(read_dicom, folder, "0.dcm", "HighBit is 15", "BitsStored 12", "export it again")


def test_a_high_bit_that_is_not_stated_is_accepted(folder):
  write_volume(folder, draw_ct(), change=setting(2, HighBit=None))
  assert_same(read_dicom(folder).volume, draw_ct())


# Damage


def _truncate(file, keep):
  file.write_bytes(file.read_bytes()[:keep])


@pytest.mark.parametrize("keep", [0, 100, 200, 400, 700, -50, -1])
def test_a_truncated_file_is_named(keep, folder):
  files = write_volume(folder, draw_ct())
  assert len(files[2].read_bytes()) > 900
  _truncate(files[2], keep)
  with pytest.raises(UserError, match=r"2\.dcm: .*(truncated|missing)") as refused:
    read_dicom(folder)
  assert_anonymous(str(refused.value))


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEGLosslessProcess14_1", "JPEG2000Lossless"])
def test_a_truncated_compressed_file_is_named(syntax, folder):
  files = write_volume(folder, draw_ct(shape=(32, 24, 3)))
  for file in files:
    _encode_with_gdcm(syntax)(file)
  _truncate(files[1], -400)
  with pytest.raises(UserError, match=r"1\.dcm: .*truncated"):
    read_dicom(folder)


@pytest.mark.parametrize("syntax", ["RLELossless", "JPEGLosslessProcess14_1", "JPEG2000Lossless"])
def test_damaged_compressed_pixels_are_named(syntax, folder):
  files = write_volume(folder, draw_ct(shape=(32, 24, 3)))
  for file in files:
    _encode_with_gdcm(syntax)(file)
  damaged = pydicom.dcmread(files[1])
  frame = next(pydicom.encaps.generate_frames(damaged.PixelData, number_of_frames=1))
  damaged.PixelData = pydicom.encaps.encapsulate([frame[: len(frame) // 2]])
  damaged.save_as(files[1])
  with pytest.raises(UserError, match=r"1\.dcm: its pixels are truncated or damaged"):
    read_dicom(folder)
