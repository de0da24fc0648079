import re

import numpy as np
import pytest

from attn_unet_jax.volumes import Volume
from attn_unet_jax.volumes.hounsfield import intensity_findings, measure_range, sample_voxels
from attn_unet_jax.volumes.nifti import read_label, read_nifti
from tests.conftest import SHARED
from tests.drawn_ct import drawn_ct

CT = drawn_ct().array.astype(np.float32)


WINDOW = (-160.0, 240.0)


def list_findings(array, window=None):
  volume = Volume(np.asarray(array), np.eye(4))
  return [(one.severity, one.kind, one.text) for one in intensity_findings(volume, "a.nii", window)]


def pad(hu, value):
  """Outside a round field of view, as scanners do."""
  padded = hu.copy()
  padded[:2] = value
  return padded


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
    (lambda hu: hu.astype(np.int16).astype(np.int8), "8-bit picture"),
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
    assert re.search(words, lines[0][2])


@pytest.mark.parametrize(
  ("array", "kind", "words"),
  [
    (CT + 1024, "hounsfield", r"air lies at \d+ instead of -1000.*intercept was left out.*1024"),
    (CT * 2, "hounsfield", "below -1100|between -200 and 300"),
    ((CT + 1024) / 2 - 1024, "hounsfield", "between -200 and 300"),
    (np.clip((CT + 1000) / 8, 0, 255).astype(np.uint8), "hounsfield", "8-bit picture"),
    ((CT + 1024) / 4000, "hounsfield", "before normalisation"),
    ((CT + 1024) / 2047.5 - 1, "hounsfield", "before normalisation"),
    ((CT - CT.mean()) / CT.std(), "hounsfield", "before normalisation"),
    (CT.astype(np.int16).astype(np.uint16), "hounsfield", "stored without a sign"),
    (CT.astype(np.int16).astype(np.uint16).astype(np.float32), "hounsfield", "without a sign"),
    (CT - 40_000, "hounsfield", "no tissue and no metal"),
    (-CT, "hounsfield", "air lies at 1000 instead of -1000"),
    (CT.astype(np.int16).astype(np.int8), "hounsfield", "8-bit picture"),
    (pad(CT + 1024, -2000), "hounsfield", "intercept was left out"),
    (pad(CT + 1000, -32768), "hounsfield", "intercept was left out"),
    (CT - 1024, "hounsfield", "between -200 and 300|below -1100"),
    (np.clip((CT + 160) * 0.6375, -3, 251), "hounsfield", "8-bit picture"),
    (np.where(CT > 400, np.nan, CT), "values", r"\d+ of 38400 voxels are NaN"),
    (np.zeros((9, 9, 9)), "values", "constant"),
  ],
)
def test_errors_say_what_the_values_are(array, kind, words):
  ((severity, found_kind, text),) = list_findings(array)
  assert (severity, found_kind) == ("error", kind)
  assert re.search(words, text), text


def draw_mr(high, dtype):
  """A bright body of many tissues in a dark field, whose noise is a magnitude: never below 0."""
  rng = np.random.default_rng(0)
  x, y, _ = np.indices((40, 32, 30)) - 16
  signal = np.where(np.hypot(x - 4, y) < 13, 0.2 + 0.6 * rng.random((40, 32, 30)) ** 2, 0)
  noise = rng.normal(0, 0.01, (2, *signal.shape))
  return (high * np.hypot(signal + noise[0], noise[1])).astype(dtype)


def draw_infant():
  """An infant of 12 x 9 cm in a field of view of 50 cm: 3 % of the voxels are tissue."""
  rng = np.random.default_rng(0)
  x, y, _ = np.indices((80, 80, 6)) - 39.5
  hu = np.where(np.hypot(x, y / 0.75) < 9.6, 30, -1000)
  hu[np.hypot(x, y / 0.75) > 8.5] = np.minimum(hu, -100)[np.hypot(x, y / 0.75) > 8.5]
  hu[38:42, 34:37] = 400
  hu[20:60, 26] = -700  # the table's foam
  return hu + rng.normal(0, 12, hu.shape)


def test_an_infant_in_the_field_of_view_of_an_adult_passes_in_silence():
  infant = draw_infant()
  assert 0.02 < ((infant > -200) & (infant < 300)).mean() < 0.04
  assert list_findings(infant, WINDOW) == []
  assert list_findings(np.maximum(infant, -1024).astype(np.int16), WINDOW) == []


@pytest.mark.parametrize(
  ("harm", "words"),
  [
    (lambda hu: hu + 1024, "subtract 1024"),
    (lambda hu: hu * 2, "below -1100|between -200 and 300"),
    (lambda hu: (hu + 1024) / 2 - 1024, "between -200 and 300"),
    (lambda hu: hu - 1024, "between -200 and 300"),
    (lambda hu: hu / 1000, "before normalisation"),
    (lambda hu: np.where(hu > -850, -1000, hu), "no Hounsfield units"),
  ],
)
def test_errors_are_found_where_little_of_the_field_is_the_patient(harm, words):
  ((severity, kind, text),) = list_findings(harm(draw_infant()))
  assert (severity, kind) == ("error", "hounsfield")
  assert re.search(words, text), text


@pytest.mark.parametrize("high", [400, 900, 2500, 20_000])
def test_another_modality_is_named(high):
  for array in (draw_mr(high, np.int16), draw_mr(high, np.float32)):
    ((severity, kind, text),) = list_findings(array)
    assert (severity, kind) == ("error", "hounsfield")
    assert re.search(r"\d\d% of the voxels are dark, as in another modality \(MR, PET\)", text), (
      text
    )
  # Interpolated, it falls a little below 0 here and there.
  rung = draw_mr(high, np.float32)
  rung[::6, ::6, ::6] = -0.03 * high
  ((severity, _, text),) = list_findings(rung)
  assert (severity, "another modality" in text) == ("error", True)


@pytest.mark.parametrize("values", [(0, 1), (0, 1, 2, 3), (0, 205, 420, 850), (0, 117, 4000)])
def test_a_label_map_is_named(values):
  labels = np.zeros((40, 32, 30), np.int16)
  for number, value in enumerate(values):
    labels[10 + 5 * number : 15 + 5 * number, 5:25, 5:20] = value
  for array in (labels, labels.astype(np.float64)):
    ((severity, kind, text),) = list_findings(array)
    assert (severity, kind) == ("error", "hounsfield")
    assert text.endswith("but those of a label map; give the CT that it belongs to")


@pytest.mark.skipif(not SHARED.is_dir(), reason="no real scans beside the project")
@pytest.mark.parametrize("name", ["organ_labels/amos_0001", "mask_pairs/reference"])
def test_real_label_maps_are_named(name):
  path = SHARED / name
  path = path.with_name(f"{path.name}.nii.gz") if not path.is_dir() else next(path.iterdir())
  ((severity, _, text),) = list_findings(read_label(path).array)
  assert (severity, "those of a label map" in text) == ("error", True)


def test_padding_and_clipping_are_warnings_with_shares():
  padded = CT.copy()
  padded[:2] = -3024
  ((severity, kind, text),) = list_findings(padded)
  assert (severity, kind) == ("warning", "padding")
  assert "5.0% of the voxels are -3024" in text
  ((severity, kind, text),) = list_findings(np.clip(CT, -160, 240))
  assert (severity, kind) == ("warning", "clipped")
  assert "-160..240 HU" in text


def test_the_ends_of_int16_do_not_overflow():
  # NumPy would warn, and warnings are errors here.
  ends = CT.astype(np.int16)
  ends[0], ends[1] = -32768, 32767
  ((severity, kind, text),) = list_findings(ends)
  assert (severity, kind) == ("error", "hounsfield")
  assert "from -1052 to 32767" in text or "to 32767" in text


def test_what_lies_beyond_the_window_is_no_matter():
  assert list_findings(pad(CT, -3024), WINDOW) == []
  assert list_findings(np.clip(CT, -160, 240), WINDOW) == []
  assert list_findings(np.clip(CT, -200, 300), WINDOW) == []
  ((severity, kind, text),) = list_findings(np.clip(CT, -100, 200), WINDOW)
  assert (severity, kind) == ("warning", "clipped")
  assert "-100..200 HU" in text
  # On another scale no window helps.
  assert [one[0] for one in list_findings(CT + 1024, WINDOW)] == ["error"]


@pytest.mark.parametrize(
  "hu",
  [
    pad(CT, -1024),
    np.maximum(CT, -1024),
    np.where(CT > 400, 3071, CT),  # metal, where a scanner's scale ends
    np.where(CT > 400, 20_000, CT),  # and on an extended scale
    CT + 0.25,
    CT.astype(np.float64),
    (CT / 4).round() * 4,
    np.where(CT < -900, -1000, CT),
    CT[10:30, 8:32, 4:20],
  ],
)
def test_scans_of_many_scanners_pass_in_silence(hu):
  assert list_findings(hu, WINDOW) == []


@pytest.mark.parametrize("sd", [50, 80, 120])
def test_the_noise_of_air_is_no_wrong_intercept(sd):
  """Of a sharp kernel at a low dose, by a scanner that does not clip at -1024."""
  noisy = CT + np.random.default_rng(0).normal(0, sd, CT.shape)
  assert (noisy < -1100).mean() > 0.01
  assert list_findings(noisy, WINDOW) == []
  for wrong in (noisy - 150, noisy * 1.15, noisy * 2):
    ((severity, kind, text),) = list_findings(wrong, WINDOW)
    assert (severity, kind) == ("error", "hounsfield")
    assert "lie below -1100 HU" in text or "between -200 and 300" in text


def test_padding_is_known_beside_the_noise_of_air():
  noisy = pad(CT + np.random.default_rng(0).normal(0, 60, CT.shape), -3024)
  share = (noisy == -3024).sum() / (noisy < -1100).sum()
  assert 0.5 < share < 0.9
  assert list_findings(noisy, WINDOW) == []
  assert [one[:2] for one in list_findings(noisy)] == [("warning", "padding")]
  # Not that of a scan whose own air is as low.
  wrong = np.where(noisy == -3024, -3024, noisy - 500)
  assert [one[0] for one in list_findings(wrong)] == ["error"]


def test_tissue_without_air_or_fat_is_a_warning():
  ((severity, kind, text),) = list_findings(np.random.default_rng(0).normal(-10, 30, (20, 20, 20)))
  assert (severity, kind) == ("warning", "hounsfield")
  assert "tight crop" in text


def test_figures_and_sample():
  assert sample_voxels(np.zeros((500, 500, 200))).size == pytest.approx(4e6, rel=0.7)
  ramp = np.linspace(0, 1000, 1001).reshape(7, 11, 13)
  assert measure_range(Volume(ramp, np.eye(4))) == pytest.approx({"low_hu": 1, "high_hu": 999})
  assert measure_range(Volume(np.full((2, 2, 2), np.nan), np.eye(4))) == {}
