"""Scores of surfaces against hand-computed values and the surface-distance package."""

import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import surface_distance
from scipy import ndimage

from attn_unet_jax.evaluation import surface_scores
from attn_unet_jax.evaluation.options import EMPTY_RULES
from attn_unet_jax.evaluation.surface import (
  DirectedDistances,
  SurfaceDistances,
  measure_by_area,
)

PAIRS = Path(__file__).parents[3] / "shared" / "data" / "mask_pairs"


def _distances(there, back, weights=None):
  directions = [np.array(mm, float) for mm in (there, back)]
  weights = weights or [np.ones(len(mm)) for mm in directions]
  pairs = zip(directions, map(np.array, weights), strict=True)
  return SurfaceDistances(*(DirectedDistances(*pair) for pair in pairs))


def test_by_hand():
  """The far piece of one direction has 4 % of its weight, that of the other 10 %."""
  distances = _distances([0, 1, 8], [0, 2, 5], [[48.0, 48.0, 4.0], [80.0, 10.0, 10.0]])
  assert surface_scores.assd_mm(distances) == pytest.approx((0.8 + 0.7) / 2)
  assert surface_scores.hausdorff_mm(distances) == 8
  assert surface_scores.hausdorff_mm(distances, 95) == 5
  assert surface_scores.hausdorff_mm(distances, 90) == 2
  assert surface_scores.surface_dice(distances, 1.0) == pytest.approx((96 + 80) / 200)
  assert surface_scores.surface_dice(distances, 2.0) == pytest.approx((96 + 90) / 200)


def test_distances_are_undefined_without_a_surface():
  mask, empty = np.ones((3, 3, 3), bool), np.zeros((3, 3, 3), bool)
  for pair in ((mask, empty), (empty, mask), (empty, empty)):
    distances = measure_by_area(*pair, (1, 1, 1))
    assert math.isnan(surface_scores.hausdorff_mm(distances))
    assert math.isnan(surface_scores.hausdorff_mm(distances, 95))


NAN = math.nan


@pytest.mark.parametrize(
  ("predicted", "referred", "by_rule"),
  [(1, 1, (1, 1, 1)), (0, 1, (0, 0, 0)), (1, 0, (NAN, 0, 0)), (0, 0, (NAN, NAN, 1))],
)
def test_the_surface_dice_follows_the_rule_for_empty_masks(predicted, referred, by_rule):
  """A missed organ has 0, as its DSC has."""
  distances = measure_by_area(
    *(np.full((3, 3, 3), bool(k)) for k in (predicted, referred)), [1] * 3
  )
  found = [surface_scores.surface_dice(distances, 2.0, rule) for rule in EMPTY_RULES]
  assert found == pytest.approx(list(by_rule), nan_ok=True)


def _compare_with_package(prediction, reference, spacing):
  theirs = surface_distance.compute_surface_distances(reference, prediction, spacing)
  ours = measure_by_area(prediction, reference, spacing)
  back, there = surface_distance.compute_average_surface_distance(theirs)
  assert surface_scores.average_directed_mm(ours.there) == pytest.approx(there, abs=1e-6)
  assert surface_scores.average_directed_mm(ours.back) == pytest.approx(back, abs=1e-6)
  for percent in (100, 95, 50):
    expected = surface_distance.compute_robust_hausdorff(theirs, percent)
    assert surface_scores.hausdorff_mm(ours, percent) == pytest.approx(expected, abs=1e-6)
  for tolerance in (0, 1, 2, 3):
    expected = surface_distance.compute_surface_dice_at_tolerance(theirs, tolerance)
    assert surface_scores.surface_dice(ours, tolerance) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_random_blobs_by_the_package(seed):
  """Unequal spacings, such that some distances are exactly a tolerance; blobs in several pieces."""
  rng = np.random.default_rng(seed)
  noise, change = (ndimage.gaussian_filter(rng.normal(size=(30, 26, 18)), 2) for _ in range(2))
  spacing = [(0.7, 0.7, 2.5), (1.0, 0.5, 2.0), (0.9, 0.8, 1.1)][seed % 3]
  _compare_with_package(noise + change / 2 > 0.04, noise > 0.03, spacing)


@pytest.mark.slow
@pytest.mark.skipif(not PAIRS.is_dir(), reason=f"the real mask pairs are not at {PAIRS}")
def test_real_masks_by_the_package():
  """A quarter of the pairs; the package takes seconds for each."""
  compared = 0
  for path in sorted((PAIRS / "reference").glob("*.nii.gz"))[::4]:
    reference, prediction = nib.load(path), nib.load(PAIRS / "prediction" / path.name)
    if not np.allclose(reference.affine, prediction.affine, atol=1e-3):
      continue
    spacing = np.linalg.norm(reference.affine[:3, :3], axis=0)
    _compare_with_package(*(np.asarray(i.dataobj) > 0 for i in (prediction, reference)), spacing)
    compared += 1
  assert compared >= 8
