import numpy as np
import pytest

from attn_unet_jax.inspection.geometry import (
  geometry_findings,
  patch_findings,
)
from attn_unet_jax.volumes import Grid
from tests.drawn_ct import AFFINE, SHAPE


def list_findings(shape=SHAPE, affine=AFFINE):
  return [(f.severity, f.kind, f.text) for f in geometry_findings(Grid(shape, affine), "a.nii")]


def make_affine(*mm):
  affine = np.diag([*mm, 1.0])
  affine[:3, 3] = 5
  return affine


def test_an_abdomen_passes_in_silence():
  assert list_findings() == []
  assert list_findings((512, 512, 240), make_affine(-0.7, -0.7, 1.0)) == []
  assert list_findings((240, 512, 512), make_affine(1.0, 0.7, 0.7)[:, [2, 1, 0, 3]]) == []


@pytest.mark.parametrize(
  ("shape", "affine", "kind", "words"),
  [
    ((512, 512, 200), np.eye(4), "no_geometry", "header was lost"),
    ((300, 300, 20), make_affine(1, 1, 12), "spacing", "a spacing of 12 mm"),
    ((900, 900, 100), make_affine(1, 1, 1.5), "field", "900 mm along X"),
    ((300, 300, 10), make_affine(1, 1, 1.5), "field", "15 mm along Z"),
  ],
)
def test_unlikely_sizes_are_warnings(shape, affine, kind, words):
  severity, found_kind, text = list_findings(shape, affine)[0]
  assert (severity, found_kind) == ("warning", kind)
  assert words in text


def test_thick_slices_are_a_note_with_their_ratio():
  ((severity, kind, text),) = list_findings((400, 400, 40), make_affine(0.8, 0.8, 5))
  assert (severity, kind) == ("note", "anisotropy")
  assert "6.2 times" in text


def test_turned_axes_are_a_note_and_sheared_ones_a_warning():
  c, s = np.cos(np.radians(12)), np.sin(np.radians(12))
  turned = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ AFFINE
  ((severity, kind, text),) = list_findings(affine=turned)
  assert (severity, kind) == ("note", "oblique")
  assert "12.0 degrees" in text
  sheared = AFFINE.copy()
  sheared[1, 2] = 8 * np.tan(np.radians(18))
  ((severity, kind, text),) = list_findings(affine=sheared)
  assert (severity, kind) == ("warning", "sheared")
  assert "18.0 degrees from perpendicular" in text


def test_a_scan_smaller_than_the_patch_is_a_note():
  grid = Grid((100, 160, 300), make_affine(2, 2, 0.5))
  assert grid.field_mm == (200, 320, 150)
  (finding,) = patch_findings(grid, (160, 160, 96), 2.0, "a.nii")
  assert finding.severity == "note"
  assert "200 x 320 x 150 mm is smaller than the patch of 320 x 320 x 192 mm along X, Z;" in (
    finding.text
  )
  assert list(patch_findings(grid, (100, 160, 75), 2.0, "a.nii")) == []


def test_a_spacing_that_no_ct_has_is_an_error():
  for mm in (300, 0.001):
    findings = list_findings((400, 400, 40), make_affine(mm, mm, mm))
    assert [one[:2] for one in findings if one[1] in ("geometry", "spacing")] == [
      ("error", "geometry")
    ]
