"""Anatomy against header: every wrong pose of a whole abdomen is named, the right one is not."""

import itertools

import numpy as np
import pydicom
import pytest

from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.dicom.read import read_dicom
from attn_unet_jax.volumes.nifti import read_nifti
from attn_unet_jax.volumes.pose import pose_findings
from tests.conftest import SHARED
from tests.drawn_ct import drawn_ct

MM = (8.0, 8.0, 8.0)
SHAPE = (48, 38, 40)
POSES = [
  (permutation, signs)
  for permutation in itertools.permutations(range(3))
  for signs in itertools.product((1, -1), repeat=3)
]
needs_real = pytest.mark.skipif(not SHARED.is_dir(), reason="no real scans here")


def draw_abdomen(shape=SHAPE, *, lungs=True, liver=True, bone=400):
  """HU int16 [X, Y, Z], RAS: a trunk of fat in air, a spine, two lungs above and a liver below."""
  x, y, z = ((np.indices(shape)[a] - (shape[a] - 1) / 2) * MM[a] for a in range(3))
  hu = np.full(shape, -1000.0)
  hu[(x / 160) ** 2 + (y / 115) ** 2 < 1] = -90
  hu[np.hypot(x, y + 55) < 22] = bone
  if liver:
    hu[((x - 65) / 60) ** 2 + ((y - 10) / 60) ** 2 + ((z - 30) / 60) ** 2 < 1] = 110
  if lungs:
    hu[(((np.abs(x) - 75) / 45) ** 2 + (y / 70) ** 2 < 1) & (z > 90)] = -800
  return (hu + np.random.default_rng(0).normal(0, 8, shape)).astype(np.int16)


def lie(array, mm, pose):
  """A scan whose voxels lie in another order than its header says."""
  permutation, signs = pose
  turned = array.transpose(permutation)[tuple(slice(None, None, sign) for sign in signs)]
  return Volume(turned, np.diag([*np.array(mm)[list(permutation)], 1.0]))


def list_findings(volume):
  return [(one.severity, one.kind, one.text) for one in pose_findings(volume, "a.nii")]


def test_the_48_poses_of_an_abdomen_one_true_and_47_named():
  abdomen = draw_abdomen()
  found = {pose: list_findings(lie(abdomen, MM, pose)) for pose in POSES}
  assert [pose for pose, seen in found.items() if not seen] == [POSES[0]]
  assert {kind for seen in found.values() for _, kind, _ in seen} == {"pose"}
  # One sign alone is a warning: each of the three mirrors.
  warned = [pose for pose, seen in found.items() if seen and seen[0][0] == "warning"]
  assert warned == [POSES[n] for n in (1, 2, 4)]


@pytest.mark.parametrize(
  ("signs", "words"),
  [
    ((-1, 1, 1), ["the liver lies on the left"]),
    ((1, -1, 1), ["the spine lies in front"]),
    ((1, 1, -1), ["the lungs lie at the lower end"]),
    ((1, -1, -1), ["the spine lies in front", "the lungs lie at the lower end"]),
  ],
)
def test_each_sign_is_named(signs, words):
  scan = lie(draw_abdomen(), MM, ((0, 1, 2), signs))
  ((severity, _, text),) = list_findings(scan)
  assert severity == ("error" if len(words) > 1 else "warning")
  assert text.startswith(f"a.nii: the anatomy contradicts the header (RAS): {'; '.join(words)};")


def test_exchanged_axes_are_named():
  for permutation, words in (
    ((1, 0, 2), "the trunk is deeper than wide; the spine lies at one side of it"),
    ((0, 2, 1), "the body runs along Y, with air where head or feet would be; so does the spine"),
    ((2, 1, 0), "the body runs along X"),
  ):
    ((severity, _, text),) = list_findings(lie(draw_abdomen(), MM, (permutation, (1, 1, 1))))
    assert severity == "error"
    assert words in text


def test_a_header_that_tells_the_truth_passes_on_any_axes():
  abdomen = draw_abdomen()
  for permutation, signs in POSES[::5]:
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for axis, (source, sign) in enumerate(zip(permutation, signs, strict=True)):
      affine[source, axis] = MM[source] * sign
    turned = abdomen.transpose(permutation)[tuple(slice(None, None, sign) for sign in signs)]
    assert list_findings(Volume(turned, affine)) == []


def test_without_its_sign_a_pose_is_not_judged():
  for signs, absent in (
    ((-1, 1, 1), {"liver": False}),
    ((1, 1, -1), {"lungs": False}),
    ((1, -1, 1), {"bone": 20}),
  ):
    assert list_findings(lie(draw_abdomen(**absent), MM, ((0, 1, 2), signs))) == []


def test_a_crop_a_slice_and_what_is_no_body_pass():
  abdomen = draw_abdomen()
  for pose in POSES[::7]:
    assert list_findings(lie(abdomen[14:34, 10:28, 5:25], MM, pose)) == []
  rng = np.random.default_rng(1)
  for array in (
    abdomen[:, :, :1],
    rng.integers(-1000, 1000, (20, 20, 20)),
    np.full((5, 6, 7), -1000),
    np.full((5, 6, 7), 40),
    np.full((1, 1, 1), 40),
    np.full((40, 40, 2), 40),
  ):
    assert list_findings(Volume(array.astype(np.int16), np.diag([*MM, 1.0]))) == []
  assert list_findings(drawn_ct()) == []


def test_slices_that_were_added_to_a_crop_are_not_the_end_of_the_body():
  """As where scans are padded to one size: beside them the body is cut, and does not end."""
  crop = draw_abdomen()[12:36, 8:30, 4:28]
  for ends in ((4, 4), (0, 4), (4, 0)):
    padded = np.pad(crop, ((0, 0), (0, 0), ends), constant_values=-1024)
    assert list_findings(lie(padded, MM, POSES[0])) == []
  # Of a body that lies free they hide nothing.
  free = np.pad(draw_abdomen(), ((3, 3), (3, 3), (0, 4)), constant_values=-1024)
  ((severity, _, text),) = list_findings(lie(free, MM, ((0, 1, 2), (1, -1, -1))))
  assert severity == "error"
  assert "the lungs lie at the lower end" in text


def test_air_of_one_value_hides_no_pose():
  abdomen = np.where(draw_abdomen() < -900, -1000, draw_abdomen()).astype(np.int16)
  silent = [pose for pose in POSES if not list_findings(lie(abdomen, MM, pose))]
  assert silent == [POSES[0]]


def test_a_chest_and_a_head_are_no_abdomen():
  chest = draw_abdomen(liver=False)
  chest[..., :] = chest[..., -1:]
  ((severity, kind, text),) = list_findings(Volume(chest, np.diag([*MM, 1.0])))
  assert (severity, kind) == ("warning", "no_abdomen")
  assert "lungs from the first slice to the last" in text
  x, y = (np.indices((60, 60))[a] * 4 - 118.0 for a in (0, 1))
  radius = np.hypot(x / 75, y / 95)
  head = np.where(radius < 1, np.where(radius > 0.88, 900, 35), -1000)
  head = np.repeat(head[..., None], 30, axis=2).astype(np.int16)
  ((severity, kind, text),) = list_findings(Volume(head, np.diag([4.0, 4, 4, 1])))
  assert (severity, kind) == ("warning", "no_abdomen")
  assert "of the body is bone, as in a head" in text


# Real scans. That they pass as they are, `test_judge` tests.


@needs_real
def test_mirrors_of_a_real_abdomen_are_named():
  scan = read_nifti(SHARED / "ct_nifti_3mm" / "ct.nii.gz")
  for signs, sign in (
    ((-1, 1, 1), "liver lies on the left"),
    ((1, -1, 1), "spine lies in front"),
    ((1, 1, -1), "lungs lie at the lower end"),
  ):
    ((_, _, text),) = list_findings(lie(scan.array, scan.spacing, ((0, 1, 2), signs)))
    assert sign in text


@needs_real
def test_a_real_head_is_no_abdomen():
  files = sorted((SHARED / "ct_dicom_irregular").glob("*.dcm"))
  slices = [pydicom.dcmread(file) for file in files]
  slices.sort(key=lambda one: float(one.ImagePositionPatient[2]))
  hu = np.stack([s.pixel_array.T * float(s.RescaleSlope) + s.RescaleIntercept for s in slices], 2)
  x, y = slices[0].PixelSpacing
  ((_, kind, _),) = list_findings(Volume(hu.astype(np.int16), np.diag([-x, -y, 4.0, 1])))
  assert kind == "no_abdomen"


@needs_real
@pytest.mark.slow
def test_of_48_poses_of_a_real_abdomen_47_are_named():
  scan = read_nifti(SHARED / "ct_nifti_3mm" / "ct.nii.gz")
  named = [bool(list_findings(lie(scan.array, scan.spacing, pose))) for pose in POSES]
  assert named == [pose != POSES[0] for pose in POSES]


@needs_real
@pytest.mark.slow
def test_of_a_real_slab_all_poses_but_head_to_feet_are_named():
  scan = read_dicom(SHARED / "ct_dicom" / "series").volume
  array = scan.array[::-1, ::-1]
  silent = [pose for pose in POSES if not list_findings(lie(array, scan.spacing, pose))]
  assert silent == [((0, 1, 2), (1, 1, 1)), ((0, 1, 2), (1, 1, -1))]
