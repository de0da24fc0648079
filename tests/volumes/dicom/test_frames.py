import zipfile

import numpy as np
import pytest

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.dicom.read import find_series, read_dicom
from tests.written_dicom import assert_anonymous, enhanced, write, write_volume

ORDER = [3, 0, 6, 1, 5, 2, 4]


def make_oblique() -> Volume:
  rng = np.random.default_rng(0)
  turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
  affine = np.eye(4)
  affine[:3, :3] = turn * (0.8, 0.7, 2.5)
  affine[:3, 3] = 9, 8, 7
  return Volume(rng.permutation(210).reshape(6, 5, 7).astype(np.int16) - 50, affine)


SCAN = make_oblique()


def test_frames_become_the_volume_that_single_slices_become(tmp_path):
  write_volume(tmp_path / "single", SCAN)
  write(tmp_path / "frames", [enhanced(SCAN, ORDER)])
  single, frames = read_dicom(tmp_path / "single"), read_dicom(tmp_path / "frames")
  np.testing.assert_array_equal(frames.volume.array, single.volume.array)
  np.testing.assert_allclose(frames.volume.affine, single.volume.affine, atol=1e-9)
  # InstanceNumber of a single slice is k + 1; that slice is the frame ORDER.index(k).
  expected = [ORDER.index(number - 1) + 1 for number in single.instance_numbers]
  assert frames.instance_numbers == tuple(expected)
  assert frames.tag_spacing_mm == 2.5
  (series,) = find_series(tmp_path / "frames")
  assert (series.num_files, series.description) == (1, "series 4, 7 slices of 6x5")


def test_frames_in_a_zip(tmp_path):
  (file,) = write(tmp_path / "frames", [enhanced(SCAN)])
  with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
    archive.write(file, "a/b")
  read = read_dicom(tmp_path / "x.zip").volume
  np.testing.assert_array_equal(read.array, read_dicom(tmp_path / "frames").volume.array)


def test_every_frame_has_its_own_scale_and_padding_is_the_files(tmp_path):
  write_volume(tmp_path / "single", SCAN)
  padded = int(SCAN.array[2, 3, 4]) + 1024 - 3000
  array = SCAN.array.copy()
  array[2, 3, 4] -= 3000
  one = enhanced(Volume(array, SCAN.affine), PixelPaddingValue=padded)
  scale = one.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence[0]
  scale.RescaleSlope, scale.RescaleIntercept = 2, -5
  write(tmp_path / "frames", [one])
  expected = SCAN.array.astype(int)
  expected[:, :, 1] = (expected[:, :, 1] + 1024) * 2 - 5
  expected[2, 3, 4] = -1000
  read, single = (read_dicom(tmp_path / name) for name in ("frames", "single"))
  at = [number - 1 for number in single.instance_numbers]
  np.testing.assert_array_equal(read.volume.array, expected[:, :, at])


def _shift_frame(one):
  position = one.PerFrameFunctionalGroupsSequence[5].PlanePositionSequence[0]
  position.ImagePositionPatient = [
    float(x) + 1.3 * float(n)
    for x, n in zip(position.ImagePositionPatient, SCAN.affine[:3, 2] * (-1, -1, 1), strict=True)
  ]


def _drop_description(one):
  one.PerFrameFunctionalGroupsSequence = one.PerFrameFunctionalGroupsSequence[:-1]


def _delete_position(one):
  del one.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence


def _delete_groups(one):
  del one.PerFrameFunctionalGroupsSequence
  one.ImagePositionPatient, one.ImageOrientationPatient = [0, 0, 0], [1, 0, 0, 0, 1, 0]
  one.PixelSpacing = [1, 1]


@pytest.mark.parametrize(
  ("harm", "complaint"),
  [
    (_shift_frame, r"0\.dcm frame [57]"),
    (_drop_description, r"0\.dcm: truncated or damaged"),
    (_delete_position, r"0\.dcm: ImagePositionPatient must be 3 numbers"),
    (_delete_groups, r"0\.dcm: a single slice"),
  ],
)
def test_what_is_no_grid_is_refused_with_the_frame(harm, complaint, tmp_path):
  one = enhanced(SCAN)
  harm(one)
  write(tmp_path, [one])
  with pytest.raises(UserError, match=complaint) as refused:
    read_dicom(tmp_path)
  assert_anonymous(str(refused.value))


def test_a_truncated_file_is_named(tmp_path):
  (file,) = write(tmp_path, [enhanced(SCAN)])
  file.write_bytes(file.read_bytes()[:-100])
  with pytest.raises(UserError, match=r"0\.dcm: .*truncated"):
    read_dicom(tmp_path)
