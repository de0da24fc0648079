"""The unit of CT slices: read where it is stated, refused where it is not known."""

from functools import partial

import numpy as np
import pytest
from pydicom.dataset import Dataset

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.dicom.read import read_dicom
from tests.written_dicom import assert_refused, enhanced, setting, slices_of, write, write_volume

SCAN = Volume(
  np.random.default_rng(3).permutation(210).reshape(7, 6, 5).astype(np.int16) - 100,
  np.diag([-0.8, -0.7, 2.5, 1]),
)
STORED = SCAN.array.astype(int) + 1024
NOTHING = {"RescaleSlope": None, "RescaleIntercept": None}


def read(folder, **options):
  return read_dicom(folder, **options).volume.array


def set_all(slices, **tags):
  for k in range(len(slices)):
    setting(k, **tags)(slices)


def make_table() -> Dataset:
  table = Dataset()
  table.LUTDescriptor, table.ModalityLUTType = [4096, 0, 16], "HU"
  table.LUTData = (np.arange(4096) - 1024).astype("<i2").tobytes()
  return table


def add_tables(slices, count, *, keep=False):
  for one in slices[:count]:
    one.ModalityLUTSequence = [make_table()]
    if not keep:
      del one.RescaleSlope, one.RescaleIntercept


# Slice by slice


@pytest.mark.parametrize(
  ("change", "complaints"),
  [
    (setting(3, **NOTHING), ["1 of 5 slices (3.dcm) without RescaleSlope and RescaleIntercept"]),
    (setting(3, RescaleIntercept=None), ["1 of 5 slices (3.dcm) without RescaleIntercept"]),
    (setting(3, RescaleSlope=None), ["1 of 5 slices (3.dcm) without RescaleSlope"]),
    (setting(3, RescaleIntercept=""), ["1 of 5 slices (3.dcm) without RescaleIntercept"]),
    (
      lambda s: [setting(k, **NOTHING)(s) for k in range(4)],
      ["only 1 of 5 slices (4.dcm) with RescaleSlope and RescaleIntercept"],
    ),
    (partial(set_all, **NOTHING), ["no slice has RescaleSlope and RescaleIntercept"]),
    (partial(set_all, RescaleIntercept=None), ["no slice has RescaleIntercept"]),
    (partial(add_tables, count=5), ["5 of 5 slices (0.dcm, 1.dcm, 2.dcm, ...)", "ModalityLUT"]),
    (partial(add_tables, count=1), ["1 of 5 slices (0.dcm)", "ModalityLUTSequence"]),
    (partial(add_tables, count=1, keep=True), ["1 of 5 slices (0.dcm)", "ModalityLUTSequence"]),
    (partial(set_all, RescaleType="OD"), ["5 of 5 slices (0.dcm", "unit OD (RescaleType)"]),
    (partial(set_all, RescaleType="HU_MOD"), ["unit HU_MOD"]),
    (partial(set_all, RescaleType="Zyxwell, Quilla"), ["unit of an unknown name"]),
    (setting(2, RescaleType="Z_EFF"), ["1 of 5 slices (2.dcm) with the unit Z_EFF"]),
    (setting(2, RescaleSlope=0), ["2.dcm: slope 0"]),
    (setting(2, RescaleSlope="1e9"), ["2.dcm: slope 1000000000.0", "e+12 HU, which nothing has"]),
    (setting(2, RescaleSlope="1e308"), ["2.dcm: slope 1e+308", "which nothing has"]),
    (setting(2, RescaleIntercept="-1e7"), ["2.dcm: slope 1.0, intercept -10000000.0"]),
  ],
)
def test_an_unknown_unit_is_refused_by_slice(change, complaints, tmp_path):
  write_volume(tmp_path, SCAN, change=change)
  assert_refused(read, tmp_path, *complaints)


@pytest.mark.parametrize(
  ("change", "expected"),
  [
    (partial(set_all, **NOTHING), STORED),
    (partial(set_all, RescaleSlope=None), SCAN.array),
    (partial(set_all, RescaleType="OD"), SCAN.array),
  ],
)
def test_what_could_be_hu_can_be_accepted(change, expected, tmp_path, capsys):
  write_volume(tmp_path, SCAN, change=change)
  with pytest.raises(UserError, match="--accept=rescale"):
    read(tmp_path)
  np.testing.assert_array_equal(read(tmp_path, accept=frozenset({"rescale"})), expected)
  assert capsys.readouterr().out.startswith(f"accepted (rescale): {tmp_path}: ")


@pytest.mark.parametrize("change", [setting(3, **NOTHING), partial(add_tables, count=5)])
def test_a_contradiction_cannot_be_accepted(change, tmp_path):
  write_volume(tmp_path, SCAN, change=change)
  with pytest.raises(UserError) as refused:
    read(tmp_path, accept=frozenset({"rescale"}))
  assert "--accept" not in str(refused.value)


@pytest.mark.parametrize(
  "change",
  [
    *(partial(set_all, RescaleType=unit) for unit in ("HU", "hu ", "US", "", "Hounsfield")),
    partial(set_all, RescaleSlope="1.000000", RescaleIntercept="-1024.0000"),
    partial(set_all, ModalityLUTSequence=[]),
    partial(set_all, BitsStored=12, HighBit=11, PixelRepresentation=0),
    partial(set_all, BitsStored=16, PixelRepresentation=0),
    partial(set_all, PhotometricInterpretation="MONOCHROME1"),
  ],
)
def test_usual_ways_to_state_hu_are_read_in_silence(change, tmp_path, caplog):
  write_volume(tmp_path, SCAN, change=change)
  np.testing.assert_array_equal(read(tmp_path), SCAN.array)
  assert not caplog.records


def test_a_scale_of_its_own_in_every_slice(tmp_path):
  slices = slices_of(SCAN)
  expected = np.empty(SCAN.shape)
  for k, one in enumerate(slices):
    one.RescaleSlope, one.RescaleIntercept = 1 + k, -1000 - k
    expected[:, :, k] = STORED[:, :, k] * (1 + k) - 1000 - k
  write(tmp_path, slices)
  np.testing.assert_array_equal(read(tmp_path), expected)


def test_values_beyond_int16_do_not_wrap(tmp_path):
  write_volume(tmp_path, SCAN, RescaleSlope="100", RescaleIntercept="-40000")
  array = read(tmp_path)
  assert array.dtype == np.float32
  np.testing.assert_array_equal(array, STORED * 100 - 40000)


def test_pixels_of_32_bits(tmp_path):
  slices = slices_of(SCAN, BitsAllocated=32, BitsStored=32, HighBit=31)
  for k, one in enumerate(slices):
    one.PixelData = np.ascontiguousarray(STORED[:, :, k].T).astype("<i4").tobytes()
  write(tmp_path, slices)
  np.testing.assert_array_equal(read(tmp_path), SCAN.array)


# Frame by frame


def _rescale_of(one, k):
  return one.PerFrameFunctionalGroupsSequence[k].PixelValueTransformationSequence[0]


def _move_to_root(one, intercept=-1024):
  for frame in one.PerFrameFunctionalGroupsSequence:
    del frame.PixelValueTransformationSequence
  one.RescaleSlope, one.RescaleIntercept, one.RescaleType = 1, intercept, "HU"


def _move_to_shared(one):
  scale = _rescale_of(one, 0)
  for frame in one.PerFrameFunctionalGroupsSequence:
    del frame.PixelValueTransformationSequence
  one.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = [scale]


def _state_at_root_too(one, intercept=-1024):
  one.RescaleSlope, one.RescaleIntercept = 1, intercept


@pytest.mark.parametrize("change", [_move_to_root, _move_to_shared, _state_at_root_too, id])
def test_frames_are_scaled_wherever_the_scale_stands(change, tmp_path):
  one = enhanced(SCAN)
  change(one)
  write(tmp_path, [one])
  np.testing.assert_array_equal(read(tmp_path), SCAN.array)


def _delete_scale(one):
  del one.PerFrameFunctionalGroupsSequence[2].PixelValueTransformationSequence


def _delete_all_scales(one):
  _move_to_root(one)
  del one.RescaleSlope, one.RescaleIntercept, one.RescaleType


def _contradict_shared(one):
  shared = Dataset()
  shared.RescaleSlope, shared.RescaleIntercept = 1, 0
  one.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = [shared]


def _name_unit(one):
  _rescale_of(one, 1).RescaleType = "ED"


@pytest.mark.parametrize(
  ("harm", "complaint"),
  [
    (_delete_scale, r"1 of 5 slices \(0\.dcm frame 3\) without RescaleSlope and RescaleIntercept"),
    (_delete_all_scales, "no slice has RescaleSlope and RescaleIntercept"),
    (partial(_state_at_root_too, intercept=0), r"5 of 5 .*0\.dcm frame 1, .*two different"),
    (_contradict_shared, r"5 of 5 .*two different RescaleSlope"),
    (_name_unit, r"1 of 5 slices \(0\.dcm frame 2\) with the unit ED"),
  ],
)
def test_frames_of_unknown_unit_are_refused_by_frame(harm, complaint, tmp_path):
  one = enhanced(SCAN)
  harm(one)
  write(tmp_path, [one])
  with pytest.raises(UserError, match=complaint):
    read(tmp_path)


# Padding


@pytest.mark.parametrize(
  ("vr", "value", "tags"),
  [
    ("US", 63536, {}),
    ("SS", -2000, {}),
    ("US", 2096, {"BitsStored": 12, "HighBit": 11}),
  ],
)
def test_padding_is_taken_by_its_bits(vr, value, tags, tmp_path):
  array = SCAN.array.copy()
  array[:3] = -2000 - 1024
  slices = slices_of(Volume(array, SCAN.affine), **tags)
  for one in slices:
    one.add_new("PixelPaddingValue", vr, value)
  write(tmp_path, slices)
  expected = SCAN.array.copy()
  expected[:3] = -1000
  np.testing.assert_array_equal(read(tmp_path), expected)


def test_padding_of_unsigned_pixels_with_a_signed_tag(tmp_path):
  slices = slices_of(SCAN, PixelRepresentation=0)
  for one in slices:
    pixels = np.frombuffer(one.PixelData, "<u2").reshape(6, 7).copy()
    pixels[0] = 63536
    one.PixelData = pixels.tobytes()
    one.add_new("PixelPaddingValue", "SS", -2000)
  write(tmp_path, slices)
  array = read(tmp_path)
  assert (array[:, 0] == -1000).all()
  np.testing.assert_array_equal(array[:, 1:], SCAN.array[:, 1:])


# Sizes


@pytest.mark.parametrize("tags", [{}, {"NumberOfFrames": 3}])
def test_a_claim_beyond_the_files_length_takes_no_memory(tags, tmp_path, monkeypatch):
  write_volume(tmp_path, SCAN, Rows=65535, Columns=65535, **tags)
  monkeypatch.setattr(np, "empty", None)  # nothing may be allocated
  with pytest.raises(
    UserError, match=r"0\.dcm: truncated or damaged, its . x 65535 x 65535 pixels"
  ):
    read(tmp_path)
