"""Overlap scores against hand-computed values and a set-based computation on real masks."""

import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from attn_unet_jax.evaluation import overlap
from attn_unet_jax.evaluation.options import EMPTY_RULES

PAIRS = Path(__file__).parents[3] / "shared" / "data" / "mask_pairs"
EXCLUDED = "466"  # its two headers disagree on the spacing


def _map(*values):
  return np.array(values, np.uint8).reshape(-1, 1, 1)


def test_by_hand():
  prediction, reference = _map(1, 1, 1, 0, 0, 2), _map(1, 1, 0, 1, 1, 2)
  counts = overlap.count_voxels(prediction == 1, reference == 1)
  assert counts == (2, 1, 2)
  scores = overlap.score_case(prediction, reference, {"pancreas": 1, "spleen": 2}, 0.008)
  assert scores["pancreas"] == pytest.approx(
    {
      "dsc": 4 / 7,
      "iou": 2 / 5,
      "precision": 2 / 3,
      "recall": 2 / 4,
      "specificity": 1 / 2,
      "volume_ml": 0.024,
      "reference_volume_ml": 0.032,
      "volume_error_ml": -0.008,
      "volume_error_abs_ml": 0.008,
    }
  )
  assert scores["spleen"]["dsc"] == scores["spleen"]["iou"] == 1


@pytest.mark.parametrize(
  ("prediction", "reference", "rule", "dsc", "precision", "recall"),
  [
    (_map(0, 0), _map(0, 0), "reference", math.nan, math.nan, math.nan),
    (_map(0, 0), _map(0, 0), "either", math.nan, math.nan, math.nan),
    (_map(0, 0), _map(0, 0), "one", 1, 1, 1),
    (_map(0, 1), _map(0, 0), "reference", math.nan, 0, math.nan),
    (_map(0, 1), _map(0, 0), "either", 0, 0, math.nan),
    (_map(0, 1), _map(0, 0), "one", 0, 0, math.nan),
    *((_map(0, 0), _map(0, 1), rule, 0, math.nan, 0) for rule in EMPTY_RULES),
    *((_map(1, 0), _map(0, 1), rule, 0, 0, 0) for rule in EMPTY_RULES),
  ],
)
def test_rules_for_empty_masks(prediction, reference, rule, dsc, precision, recall):
  scores = overlap.score_case(prediction, reference, {"pancreas": 1}, 1.0, empty=rule)["pancreas"]
  expected = {"dsc": dsc, "iou": dsc, "precision": precision, "recall": recall}
  assert {name: scores[name] for name in expected} == pytest.approx(expected, nan_ok=True)
  if rule == "reference":
    assert scores == pytest.approx(
      overlap.score_case(prediction, reference, {"pancreas": 1}, 1.0)["pancreas"], nan_ok=True
    )


@pytest.mark.parametrize(
  ("predicted", "referred", "by_rule", "specificity"),
  [(0, 0, (math.nan, math.nan, 0), 1), (1, 0, (math.nan, 2, 2), 0), (0, 1, (-2, -2, -2), math.nan)],
)
def test_errors_of_the_volume_are_defined_where_the_dsc_is(
  predicted, referred, by_rule, specificity
):
  """A missed organ is an error of all its volume; specificity needs a voxel outside the organ."""
  maps = _map(predicted, predicted), _map(referred, referred)
  for rule, error in zip(EMPTY_RULES, by_rule, strict=True):
    scores = overlap.score_case(*maps, {"pancreas": 1}, 1.0, empty=rule)["pancreas"]
    assert scores["volume_error_ml"] == pytest.approx(error, nan_ok=True)
    assert scores["volume_error_abs_ml"] == pytest.approx(abs(error), nan_ok=True)
    assert scores["specificity"] == pytest.approx(specificity, nan_ok=True)


def _rows(*pairs):
  """Scores of cases of one voxel each: whether the prediction, the reference has the class."""
  return [overlap.score_case(_map(p), _map(r), {"pancreas": 1}, 1.0) for p, r in pairs]


def test_the_mean_dsc_is_over_the_cases_that_have_the_class():
  """A missed one counts as 0; one without the class neither helps nor harms."""
  assert overlap.average_dsc(_rows((1, 1), (0, 1), (0, 0), (1, 0))) == (0.5, 2, 4)
  mean, n, cases = overlap.average_dsc(_rows((0, 0), (1, 0)))
  assert (math.isnan(mean), n, cases) == (True, 0, 2)


def test_a_class_that_no_case_has_does_not_raise_the_mean_of_the_others():
  classes = {"pancreas": 1, "spleen": 2}
  rows = [overlap.score_case(_map(1, 0), _map(1, 1), classes, 1.0) for _ in range(3)]
  assert overlap.average_dsc(rows) == (pytest.approx(2 / 3), 3, 6)


def test_exchanging_the_masks_exchanges_precision_and_recall():
  a, b = np.random.default_rng(0).random((2, 5, 6, 7)) < 0.3
  forth, back = overlap.count_voxels(a, b), overlap.count_voxels(b, a)
  assert overlap.precision_score(forth) == overlap.recall_score(back)
  assert overlap.dice_score(forth) == overlap.dice_score(back)
  assert overlap.iou_score(forth) == pytest.approx(
    overlap.dice_score(forth) / (2 - overlap.dice_score(forth))
  )


@pytest.mark.parametrize("pair", [(_map(0, 1), _map(0, 1, 1)), (_map(0, 1, 1), _map(0, 1))])
def test_shapes_that_differ(pair):
  with pytest.raises(ValueError, match="differ"):
    overlap.score_case(*pair, {"pancreas": 1}, 1.0)
  with pytest.raises(ValueError, match="differ"):
    overlap.count_voxels(*(mask == 1 for mask in pair))


def test_unlabelled_voxels_are_not_scored():
  prediction, reference = _map(1, 1, 0, 1), _map(1, 255, 255, 0)
  scores = overlap.score_case(prediction, reference, {"pancreas": 1}, 1.0, unlabelled=255)
  assert scores == overlap.score_case(_map(1, 1), _map(1, 0), {"pancreas": 1}, 1.0)


def _real_pairs():
  names = sorted(path.name for path in (PAIRS / "reference").glob("*.nii.gz"))
  return [name for name in names if not name.startswith(EXCLUDED)][::6]


@pytest.mark.skipif(not PAIRS.is_dir(), reason=f"the real mask pairs are not at {PAIRS}")
@pytest.mark.parametrize("name", _real_pairs())
def test_real_masks_against_sets(name):
  """Sets of foreground voxel numbers: no arithmetic on masks is shared with the code."""
  files = [nib.load(PAIRS / folder / name) for folder in ("prediction", "reference")]
  masks = [np.asanyarray(file.dataobj) for file in files]
  predicted, referred = (set(np.flatnonzero(mask == 1).tolist()) for mask in masks)
  spacing = files[1].header.get_zooms()
  scores = overlap.score_case(*masks, {"pancreas": 1}, math.prod(spacing) / 1000)["pancreas"]
  assert predicted
  assert referred
  assert scores == pytest.approx(
    {
      "dsc": 2 * len(predicted & referred) / (len(predicted) + len(referred)),
      "iou": len(predicted & referred) / len(predicted | referred),
      "precision": len(predicted & referred) / len(predicted),
      "recall": len(predicted & referred) / len(referred),
      "specificity": 1 - len(predicted - referred) / (masks[1].size - len(referred)),
      "volume_ml": len(predicted) * math.prod(spacing) / 1000,
      "reference_volume_ml": len(referred) * math.prod(spacing) / 1000,
      "volume_error_ml": (len(predicted) - len(referred)) * math.prod(spacing) / 1000,
      "volume_error_abs_ml": abs(len(predicted) - len(referred)) * math.prod(spacing) / 1000,
    }
  )
