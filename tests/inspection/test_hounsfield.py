import re

import numpy as np
import pytest

from attn_unet_jax.inspection.hounsfield import intensity_findings, measure_range, sample_voxels
from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.nifti import read_nifti
from tests.conftest import SHARED
from tests.drawn_ct import drawn_ct

CT = drawn_ct().array.astype(np.float32)


def list_findings(array):
  volume = Volume(np.asarray(array), np.eye(4))
  return [(one.severity, one.kind, one.text) for one in intensity_findings(volume, "a.nii")]


def test_hounsfield_units_pass_in_silence():
  assert list_findings(CT) == []
  assert list_findings(CT.astype(np.int16)) == []
  assert list_findings(CT[4:36, 7:33]) == []  # a crop without air around


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real scans beside the project")
@pytest.mark.parametrize(
  "name", ["ct_nifti_3mm/ct.nii.gz", "ct_spleen/sub-spleen2_ct.nii.gz", "ct_dicom/expected.nii.gz"]
)
@pytest.mark.parametrize(
  ("harm", "words"),
  [
    (lambda hu: hu, None),
    (lambda hu: hu + 1024, "subtract 1024"),
    (lambda hu: hu * 2.0, "slope or intercept are wrong"),
    (lambda hu: (hu + 1024) * 2.5 - 1024, "slope or intercept are wrong"),
    (lambda hu: hu * 0.1, "nearly all values lie from"),
    (lambda hu: (hu + 1024) / 4096, "no Hounsfield units"),
    (lambda hu: np.clip((hu + 160) * (255 / 400), 0, 255).round(), "8-bit picture"),
    (lambda hu: np.clip(hu, -160, 240), "clipped to -160..240"),
  ],
)
def test_what_conversions_do_to_real_scans_is_seen(name, harm, words):
  hu = read_nifti(SHARED / name).array.astype(np.float32)
  lines = list_findings(harm(hu))
  assert bool(lines) == (words is not None)
  if words:
    assert words in lines[0][2]


@pytest.mark.parametrize(
  ("array", "kind", "words"),
  [
    (CT + 1024, "hounsfield", r"air lies at \d+ instead of -1000.*intercept was left out.*1024"),
    (CT * 2, "hounsfield", "below -1100|between -200 and 300"),
    ((CT + 1024) / 2 - 1024, "hounsfield", "between -200 and 300"),
    (np.clip((CT + 1000) / 8, 0, 255).astype(np.uint8), "hounsfield", "8-bit picture"),
    ((CT + 1024) / 4000, "values", "no Hounsfield units"),
    (np.where(CT > 400, np.nan, CT), "values", r"\d+ of 38400 voxels are NaN"),
    (np.zeros((9, 9, 9)), "values", "constant"),
  ],
)
def test_errors_say_what_the_values_are(array, kind, words):
  ((severity, found_kind, text),) = list_findings(array)
  assert (severity, found_kind) == ("error", kind)
  assert re.search(words, text), text


def test_padding_and_clipping_are_warnings_with_shares():
  padded = CT.copy()
  padded[:2] = -3024
  ((severity, kind, text),) = list_findings(padded)
  assert (severity, kind) == ("warning", "padding")
  assert "5.0% of the voxels are -3024" in text
  ((severity, kind, text),) = list_findings(np.clip(CT, -160, 240))
  assert (severity, kind) == ("warning", "clipped")
  assert "-160..240 HU" in text


def test_tissue_without_air_or_fat_is_a_warning():
  ((severity, kind, text),) = list_findings(np.random.default_rng(0).normal(-10, 30, (20, 20, 20)))
  assert (severity, kind) == ("warning", "hounsfield")
  assert "tight crop" in text


def test_figures_and_sample():
  assert sample_voxels(np.zeros((500, 500, 200))).size == pytest.approx(4e6, rel=0.7)
  ramp = np.linspace(0, 1000, 1001).reshape(7, 11, 13)
  assert measure_range(Volume(ramp, np.eye(4))) == pytest.approx({"low_hu": 1, "high_hu": 999})
  assert measure_range(Volume(np.full((2, 2, 2), np.nan), np.eye(4))) == {}
