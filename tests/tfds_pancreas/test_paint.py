from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from tfds_pancreas.abdomen.organs import ORGANS
from tfds_pancreas.abdomen.paint import paint_ct
from tfds_pancreas.abdomen.tissues import TISSUES, find_tissue
from tfds_pancreas.phantom_ct.anatomy import draw_label_map

SPACING = (4.0, 4.0, 4.0)
REAL = Path(__file__).parents[3] / "shared" / "data" / "ct_nifti_3mm"
# Mean HU that a solid organ has in any contrast phase, with two sds between patients.
RANGES = {
  "pancreas": (0, 150),
  "liver": (30, 145),
  "spleen": (30, 175),
  "kidney_right": (10, 230),
  "muscle": (20, 85),
  "aorta": (30, 370),
  "fat": (-125, -75),
  "lung": (-900, -650),
}


@pytest.fixture(scope="module")
def labels():
  return draw_label_map(7, (80, 66, 64), SPACING)[0]


@pytest.fixture(scope="module")
def scans(labels):
  return [paint_ct(labels, key, spacing=SPACING) for key in range(8)]


def erode_organ(labels, organ):
  """Returns an organ without its border, where partial volume is."""
  mask = labels == ORGANS[organ]
  eroded = ndimage.binary_erosion(mask)
  return eroded if eroded.sum() > 20 else mask


def test_the_same_key_paints_the_same_bits(labels, scans):
  again = paint_ct(labels, 2, spacing=SPACING)
  assert again.dtype == np.int16
  np.testing.assert_array_equal(again, scans[2])
  assert (again != scans[3]).any()


@pytest.mark.parametrize("organ", RANGES)
def test_organs_have_the_density_of_their_tissue(labels, scans, organ):
  means = [scan[erode_organ(labels, organ)].mean() for scan in scans]
  low, high = RANGES[organ]
  assert low < min(means)
  assert max(means) < high


@pytest.mark.parametrize("organ", ["liver", "spleen", "muscle"])
def test_organs_vary_within_as_much_as_on_real_scans(labels, scans, organ):
  sds = [scan[erode_organ(labels, organ)].std() for scan in scans]
  assert min(sds) > 7
  assert max(sds) < 35


def test_patients_differ_in_density(labels, scans):
  assert np.std([scan[erode_organ(labels, "pancreas")].mean() for scan in scans]) > 8


def test_air_is_around_and_gas_and_fluid_are_inside(labels, scans):
  assert all(abs(scan[erode_organ(labels, "background")].mean() + 1000) < 5 for scan in scans)
  colon = np.concatenate([scan[erode_organ(labels, "colon")] for scan in scans])
  assert (colon < -500).mean() > 0.1
  assert (colon > -100).mean() > 0.1


def test_names_decide_the_tissue():
  assert all(find_tissue(name) in TISSUES for name in ORGANS)
  assert find_tissue("Kidney_left") == "kidney"
  assert find_tissue("vertebrae_L1") == "bone"
  assert find_tissue("inferior_vena_cava") == "vena_cava"
  assert find_tissue("wishbone of an unknown kind") == "bone"
  assert find_tissue("something else") == "soft_tissue"


def test_a_map_without_fat_gets_fat_around_its_organs_and_air_outside():
  foreign = np.zeros((60, 60, 20), np.int32)
  foreign[20:40, 20:40] = 77
  foreign[25:35, 25:35, 5:15] = 300
  scan = paint_ct(foreign, 0, spacing=(3.0, 3.0, 3.0), names={77: "liver"})
  assert 30 < scan[21:24, 21:24].mean() < 150
  assert 0 < scan[28:32, 28:32, 8:12].mean() < 120  # a value without a name is soft tissue
  assert -130 < scan[29:31, 13:16].mean() < -70
  assert scan[:3, :3].mean() < -950


def test_a_real_label_map_is_painted():
  if not REAL.exists():
    pytest.skip(f"{REAL} is not there")
  organs = np.asarray(nib.load(REAL / "labels_104.nii.gz").dataobj).astype(np.int32)
  names = {1: "spleen", 5: "liver", 6: "stomach", 7: "aorta", 10: "pancreas", 57: "colon"}
  scan = paint_ct(organs, 1, spacing=(3.0, 3.0, 3.0), names=names)
  assert scan.shape == organs.shape
  for value, organ in ((5, "liver"), (10, "pancreas")):
    assert RANGES[organ][0] < scan[organs == value].mean() < RANGES[organ][1]
  assert scan[organs == 57].min() < -700
