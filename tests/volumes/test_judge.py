"""One verdict for every command: refused, accepted by its flag, or said once."""

import nibabel as nib
import numpy as np
import pytest

from attn_unet_jax.runtime.acceptance import REASONS
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.dicom.read import read_dicom
from attn_unet_jax.volumes.judge import Judge
from attn_unet_jax.volumes.nifti import read_grid, read_nifti
from attn_unet_jax.volumes.nifti_folder import is_nifti
from tests.conftest import SHARED
from tests.drawn_ct import AFFINE, drawn_ct

HU = drawn_ct().array


def test_a_sound_scan_passes_in_silence():
  assert Judge().judge_scan(drawn_ct(), "a") == []


@pytest.mark.parametrize(
  ("array", "affine", "reason"),
  [
    (HU.astype(np.int32) + 1024, AFFINE, "hounsfield"),
    (np.clip((HU + 160) * (255 / 400), 0, 255).astype(np.uint8), AFFINE, "hounsfield"),
    ((HU + 1024) / 4096, AFFINE, "hounsfield"),
    (HU, np.diag([300.0, 300, 300, 1]), "geometry"),
    (HU, np.diag([0.001, 0.001, 0.001, 1]), "geometry"),
  ],
)
def test_a_doubt_is_refused_or_accepted_by_its_reason(array, affine, reason):
  scan = Volume(array, affine)
  others = frozenset(REASONS) - {reason}
  with pytest.raises(UserError, match=rf"^a\.nii: .*--accept={reason}$"):
    Judge(others).judge_scan(scan, "a.nii")
  (line,) = Judge(frozenset({reason})).judge_scan(scan, "a.nii")
  assert line.startswith(f"accepted ({reason}): a.nii: ")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_nobody_can_know_better_is_always_refused(value):
  array = HU.astype(np.float32)
  array[0, 0, 0] = value
  with pytest.raises(UserError, match="1 of 38400 voxels are NaN or infinite"):
    Judge(frozenset(REASONS)).judge_scan(Volume(array, AFFINE), "a.nii")


def tilted(degrees):
  affine = AFFINE.copy()
  affine[1, 2] = 8 * np.tan(np.radians(degrees))
  return affine


def test_a_tilted_gantry_is_a_line_and_an_impossible_tilt_is_refused():
  (line,) = Judge().judge_scan(Volume(HU, tilted(18)), "a.nii")
  assert line.startswith("warning: a.nii: axes are 18.0 degrees from perpendicular")
  with pytest.raises(UserError, match=r"a\.nii: axes are 60\.0 degrees .*--accept=geometry$"):
    Judge().judge_scan(Volume(HU, tilted(60)), "a.nii")


def write_contradiction(path):
  """The sform says 1 mm and mirrors; the qform is right."""
  image = nib.Nifti1Image(HU, None)
  image.header.set_qform(AFFINE, 1)
  image.header.set_sform(np.diag([-1.0, -1, 1, 1]), 1)
  image.to_filename(path)
  return path


def test_forms_that_disagree_are_refused_or_the_sform_is_taken_by_flag(tmp_path):
  path = write_contradiction(tmp_path / "a.nii")
  with pytest.raises(UserError, match=r"a\.nii: sform and qform put voxels .*--accept=geometry$"):
    Judge().judge_grid(read_grid(path), path, path)
  (line,) = Judge(frozenset({"geometry"})).judge_scan(read_nifti(path), path, path)
  assert line.startswith("accepted (geometry): ")


def test_a_warning_is_a_line(tmp_path):
  path = tmp_path / "a.nii"
  nib.Nifti1Image(HU, None).to_filename(path)
  (line,) = Judge().judge_scan(drawn_ct(), path, path)
  assert line.startswith(f"warning: {path}: neither sform nor qform is set")


NIFTI_CT = ("ct_dicom/expected.nii.gz", "ct_nifti_3mm/ct.nii.gz", "ct_spleen/sub-spleen2_ct.nii.gz")
needs_real_scans = pytest.mark.skipif(not SHARED.is_dir(), reason="no real scans here")


@needs_real_scans
@pytest.mark.parametrize("name", NIFTI_CT[1:])
def test_real_scans_pass_in_silence(name):
  assert Judge().judge_scan(read_nifti(SHARED / name), name, SHARED / name) == []


@needs_real_scans
@pytest.mark.slow
def test_every_real_volume_passes_in_silence():
  images = {*(SHARED / name for name in NIFTI_CT), *(SHARED / "msd07_slabs" / "image").iterdir()}
  for path in sorted(filter(is_nifti, images)):
    assert Judge().judge_scan(read_nifti(path), path, path) == []
  for path in sorted(set(SHARED.rglob("*.nii.gz")) - images):
    assert Judge().judge_grid(read_grid(path), path, path) == []
  for name in ("ct_dicom/series", "ct_dicom/series_jpeg2000", "ct_dicom_3slice/series"):
    assert Judge().judge_scan(read_dicom(SHARED / name).volume, name) == []
