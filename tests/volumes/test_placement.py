import nibabel as nib
import numpy as np
import pytest

from attn_unet_jax.volumes import Grid
from attn_unet_jax.volumes.placement import header_findings, spacing_findings
from tests.drawn_ct import AFFINE, SHAPE

MIRRORED = AFFINE @ np.diag([-1.0, 1, 1, 1])


def make_affine(*mm):
  return np.diag([*mm, 1.0])


def turned(degrees, affine=AFFINE):
  c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
  return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ affine


def shifted(mm):
  affine = AFFINE.copy()
  affine[0, 3] += mm
  return affine


def sheared(degrees):
  affine = AFFINE.copy()
  affine[1, 2] = 8 * np.tan(np.radians(degrees))
  return affine


def list_findings(tmp_path, sform, qform, codes=(1, 1)):
  image = nib.Nifti1Image(np.zeros(SHAPE, np.int16), AFFINE)
  image.set_qform(qform, code=codes[1])
  image.set_sform(sform, code=codes[0])
  path = tmp_path / "a.nii"
  nib.save(image, path)
  return [(one.severity, one.kind, one.text) for one in header_findings(path)]


@pytest.mark.parametrize(
  ("sform", "qform", "codes"),
  [
    (AFFINE, AFFINE, (1, 1)),
    (AFFINE, MIRRORED, (1, 0)),  # the other form is not set
    (AFFINE, make_affine(1, 1, 1), (0, 1)),
    (AFFINE, shifted(3.0), (1, 1)),  # below half a voxel
    (AFFINE, turned(0.5), (2, 1)),
    (AFFINE * np.float32(1.00001), AFFINE, (4, 1)),
  ],
)
def test_forms_that_agree_are_no_matter(tmp_path, sform, qform, codes):
  sform = np.vstack([sform[:3], [0, 0, 0, 1]])
  assert list_findings(tmp_path, sform, qform, codes) == []


@pytest.mark.parametrize(
  ("sform", "qform", "words"),
  [
    (make_affine(-1, -1, 1), AFFINE, "voxels of 1 x 1 x 1 and of 8 x 8 x 8 mm"),
    (make_affine(8, 8, 10), AFFINE, "voxels of 8 x 8 x 10 and of 8 x 8 x 8 mm"),
    (AFFINE, MIRRORED, "(mirrored)"),
    (AFFINE, turned(90), "axes turned by 90 degrees"),
    (AFFINE, turned(180), "axes turned by 180 degrees"),
  ],
)
def test_forms_that_give_organs_another_size_or_side_are_an_error(tmp_path, sform, qform, words):
  ((severity, kind, text),) = list_findings(tmp_path, sform, qform)
  assert (severity, kind) == ("error", "geometry")
  assert words in text


@pytest.mark.parametrize(
  ("sform", "qform"),
  [
    (AFFINE, shifted(7.0)),
    (AFFINE, shifted(5000.0)),  # aligned to another scan
    (AFFINE, turned(10)),
    (sheared(18), AFFINE),  # a tilted gantry, whose qform has no shear
    (sheared(30), AFFINE),
  ],
)
def test_forms_that_give_another_place_alone_are_a_warning(tmp_path, sform, qform):
  ((severity, kind, text),) = list_findings(tmp_path, sform, qform, (2, 1))
  assert (severity, kind) == ("warning", "orientation")
  assert "the sform is taken here" in text


def test_no_form_at_all_is_a_warning(tmp_path):
  ((severity, kind, text),) = list_findings(tmp_path, AFFINE, AFFINE, (0, 0))
  assert (severity, kind) == ("warning", "orientation")
  assert "neither sform nor qform is set, so left and right are a guess (LAS)" in text


@pytest.mark.parametrize("mm", [0.001, 0.04, 51, 300, 700])
def test_voxels_that_no_ct_has_are_an_error(mm):
  (finding,) = spacing_findings(Grid(SHAPE, make_affine(1, 1, mm)), "a.nii")
  assert (finding.severity, finding.kind) == ("error", "geometry")
  assert f"a.nii: voxels of 1 x 1 x {mm:g} mm, a CT has 0.05 to 50" in finding.text


@pytest.mark.parametrize(
  ("shape", "mm"),
  [((512, 512, 200), 0.08), ((512, 512, 30), 7.0), ((205, 205, 150), 20.0), ((40, 40, 900), 5.0)],
)
def test_a_field_that_no_person_has_is_an_error(shape, mm):
  (finding,) = spacing_findings(Grid(shape, make_affine(mm, mm, mm)), "a.nii")
  assert (finding.severity, finding.kind) == ("error", "geometry")
  assert f"a.nii: a field of view of {shape[0] * mm:g} x " in finding.text


@pytest.mark.parametrize(
  ("shape", "mm"),
  [((512, 512, 3), 0.6), ((300, 300, 1600), 1.3), ((60, 60, 60), 0.7), ((64, 128, 64), 0.4)],
)
def test_slabs_crops_and_whole_bodies_pass(shape, mm):
  assert list(spacing_findings(Grid(shape, make_affine(mm, mm, mm)), "a.nii")) == []


@pytest.mark.parametrize("mm", [0.1, 0.3, 0.7, 5, 12, 40])
def test_fine_and_thick_voxels_pass(mm):
  assert list(spacing_findings(Grid(SHAPE, make_affine(mm, mm, mm)), "a.nii")) == []
