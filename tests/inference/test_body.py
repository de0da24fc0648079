"""Box and voxels of the body hold the body, of real scans too, or they are the whole scan."""

import nibabel as nib
import numpy as np
import pytest

from attn_unet_jax.inference.body import find_body, find_outside
from attn_unet_jax.volumes.nifti import read_nifti
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.resample import resample_labels, resample_volume, working_grid
from attn_unet_jax.volumes.volume import Volume
from tests.conftest import SHARED

needs_real = pytest.mark.skipif(not SHARED.is_dir(), reason="no real scans beside the project")
WHOLE = (slice(0, 60), slice(0, 50), slice(0, 10))


def scan(fill=40, air=-1000):
  """A body of 30 x 20 voxels of 2 mm in air, through all slices."""
  hu = np.full((60, 50, 10), air, np.int16)
  hu[15:45, 20:40] = fill
  return hu


def found(hu):
  return find_body(Volume(hu, np.diag([2.0, 2.0, 2.0, 1.0])))


def test_ten_millimetres_around_the_body():
  assert found(scan()) == (slice(10, 50), slice(15, 45), slice(0, 10))


def test_lungs_and_gas_inside_are_part_of_it():
  hu = scan()
  hu[16:44, 21:39] = -850
  hu[30, 20:40] = 40
  assert found(hu)[:2] == (slice(10, 50), slice(15, 45))


def test_small_pieces_are_not_and_a_second_body_is():
  hu = scan()
  hu[2, 2, :] = 300  # a wire: 10 of 6000 voxels
  assert found(hu)[0] == slice(10, 50)
  hu[2:7, 2:12] = 40  # an arm: a twelfth of the body
  assert found(hu)[:2] == (slice(0, 50), slice(0, 45))


@pytest.mark.parametrize(
  "hu",
  [scan(40 - 1024, -2024), scan(1064, 24), scan() // 100, np.full((60, 50, 10), -1000, np.int16)],
  ids=["shifted down", "shifted up", "scaled", "air"],
)
def test_where_no_body_is_recognised_it_is_the_whole_scan(hu):
  assert found(hu) == WHOLE


def test_bone_alone_is_no_body():
  """The whole scan, where the values are 1024 HU too low: only bone passes the threshold then."""
  hu = scan(40 - 1024, -2024)
  hu[25:35, 32:38] = 900 - 1024
  hu[27:33, 34:36] = 560 - 1024
  hu[25:35, 32:38, ::2] = 560 - 1024
  assert found(hu) == WHOLE


@needs_real
@pytest.mark.parametrize(
  ("image", "label"),
  [
    ("ct_nifti_3mm/ct.nii.gz", "ct_nifti_3mm/labels_104.nii.gz"),
    ("ct_spleen/sub-spleen2_ct.nii.gz", "ct_spleen/sub-spleen2_ct_seg-manual.nii.gz"),
    ("msd07_slabs/image/msd_051.nii.gz", "msd07_slabs/label/msd_051.nii.gz"),
    ("msd07_slabs/image/msd_186.nii.gz", "msd07_slabs/label/msd_186.nii.gz"),
  ],
)
def test_no_organ_of_a_real_scan_is_cut(image, label):
  volume = to_canonical(read_nifti(SHARED / image))
  organs = nib.as_closest_canonical(nib.load(SHARED / label))
  labelled = np.asanyarray(organs.dataobj) > 0
  inside = np.count_nonzero(labelled[find_body(volume)])
  assert inside == np.count_nonzero(labelled) > 0


def inside(hu, mm=3.0):
  return ~find_outside(Volume(hu, np.diag([mm, mm, mm, 1.0])))


def lying(slices=12, mm=3.0):
  """A body of 180 x 120 mm with a lung, 9 mm above the hollow box of a table, 30 mm high.

  Returns the HU, and the voxels of the body.
  """
  x, y, _ = np.indices((round(300 / mm), round(240 / mm), slices)) * mm + mm / 2
  body = np.hypot((x - 150) / 90, (y - 150) / 60) < 1
  hu = np.where(body, 40, -1000).astype(np.int16)
  hu[np.hypot((x - 180) / 30, (y - 150) / 30) < 1] = -850
  table = (abs(x - 150) < 120) & (abs(y - 66) < 15)
  hu[table] = 300
  hu[(abs(x - 150) < 117 - mm / 2) & (abs(y - 66) < 12)] = -960
  return hu, body


@pytest.mark.parametrize("slices", [1, 2, 12])
@pytest.mark.parametrize("mm", [1.5, 2.0, 3.0])
def test_the_body_without_the_table_and_with_its_lung(slices, mm):
  hu, body = lying(slices, mm)
  np.testing.assert_array_equal(inside(hu, mm), body)


def test_a_table_that_the_body_lies_on_stays_outside():
  hu, body = lying()
  hu[48:52, 27:31] = 40  # a strip of skin from the body down to the table
  found = inside(hu)
  assert found[body].all()
  # At most 12 mm of the table's upper side, voxel 26, are grown back.
  assert not found[:, :23].any()
  assert not found[:44, :27].any()
  assert not found[56:, :27].any()


def test_air_between_an_arm_and_the_trunk_is_outside():
  hu, body = lying()
  arm = np.zeros(hu.shape, bool)
  arm[2:12, 40:52] = True
  hu[arm] = 40
  np.testing.assert_array_equal(inside(hu), body | arm)


def test_what_is_closed_in_every_slice_but_one_is_outside():
  hu, body = lying()
  wall = np.zeros(hu.shape, bool)
  wall[2:50, 39:64] = True
  wall[5:50, 42:61] = False
  hu[wall] = 40
  assert inside(hu)[5:15, 42:61].all()
  hu[2:5, 42:61, -1] = -1000
  wall[2:5, 42:61, -1] = False
  np.testing.assert_array_equal(inside(hu), body | wall)


def test_gas_that_the_first_or_last_slice_cuts_is_inside():
  hu, body = lying()
  hu[40:44, 45:55, :3] = hu[40:44, 45:55, -3:] = -1000
  np.testing.assert_array_equal(inside(hu), body)


def gas_beneath_skin():
  """A body with gas beneath 3 mm of skin, 9 mm wide; and its voxels."""
  hu, body = lying()
  hu[48:51, 60:69] = -1000
  assert hu[49, 68:71, 0].tolist() == [-1000, 40, -1000]
  return hu, body


def test_a_wall_that_is_thin_for_a_stretch_holds_the_gas():
  hu, body = gas_beneath_skin()
  np.testing.assert_array_equal(inside(hu), body)


@pytest.mark.parametrize(
  "side", [np.s_[:9, 9:20], np.s_[-9:, 9:20], np.s_[9:20, :9], np.s_[9:20, -9:]]
)
def test_air_is_outside_whichever_side_it_reaches(side):
  hu = np.full((40, 40, 4), 40, np.int16)
  hu[side] = hu[25:29, 25:29] = -1000
  expected = np.ones(hu.shape, bool)
  expected[side] = False
  np.testing.assert_array_equal(inside(hu), expected)


@pytest.mark.parametrize("padding", [-3024, -2000, -1024])
def test_what_lies_outside_the_circle_of_the_scanner_is_outside(padding):
  hu, body = lying()
  x, y, _ = np.indices(hu.shape)
  hu[np.hypot(x - 49.5, y - 39.5) > 45] = padding
  np.testing.assert_array_equal(inside(hu), body)


def test_a_narrow_field_of_view_cuts_no_lung_off():
  hu, body = lying()
  cut = np.s_[:62, 15:]  # through the lung
  assert (hu[cut][-1] == -850).any()
  np.testing.assert_array_equal(inside(hu[cut]), body[cut])


@pytest.mark.parametrize("shift", [-60, 60])
def test_a_small_shift_of_hu_changes_nothing(shift):
  hu, body = lying()
  np.testing.assert_array_equal(inside(hu + np.int16(shift)), body)


def nothing_to_cut():
  hu, _ = lying()
  yield "no air", hu[35:65, 45:55]
  yield "all air", np.full_like(hu, -1000)
  yield "shifted up", hu + np.int16(1024)
  yield "shifted down", hu - np.int16(1024)
  yield "air of -800", np.maximum(hu, -800)
  yield "one voxel", hu[50:51, 50:51, :1]


@pytest.mark.parametrize(("name", "hu"), [*nothing_to_cut()])
def test_where_nothing_is_known_to_be_outside_all_is_inside(name, hu):
  assert inside(hu).all(), name


def test_voxels_as_large_as_a_shell_are_not_opened():
  hu = np.full((20, 20, 4), -1000, np.int16)
  hu[5:15, 9:11] = 40  # 24 mm
  np.testing.assert_array_equal(inside(hu, 12.0), hu == 40)


@needs_real
@pytest.mark.parametrize(
  ("image", "label"),
  [
    ("ct_nifti_3mm/ct.nii.gz", "ct_nifti_3mm/labels_104.nii.gz"),
    ("msd07_slabs/image/msd_138.nii.gz", "msd07_slabs/label/msd_138.nii.gz"),
    ("msd07_slabs/image/msd_343.nii.gz", "msd07_slabs/label/msd_343.nii.gz"),
  ],
)
def test_no_voxel_of_an_organ_of_a_real_scan_is_outside(image, label):
  scan_ = to_canonical(read_nifti(SHARED / image))
  volume = resample_volume(scan_, working_grid(scan_.grid, 3.0))
  organs = to_canonical(read_nifti(SHARED / label))
  labelled = (
    resample_labels(Volume(organs.array.astype(np.uint8), organs.affine), volume.grid).array > 0
  )
  found = ~find_outside(volume)
  assert found[labelled].all()
  assert labelled.any()
  # The tables of these scans lie behind the body, and the corners hold air.
  assert 0.2 < found.mean() < 0.7
  assert not found[[0, -1], -1].any()
