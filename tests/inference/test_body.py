"""The box of the body holds the body, of real scans too, or it is the whole scan."""

import nibabel as nib
import numpy as np
import pytest

from attn_unet_jax.inference.body import find_body
from attn_unet_jax.volumes.nifti import read_nifti
from attn_unet_jax.volumes.orientation import to_canonical
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
