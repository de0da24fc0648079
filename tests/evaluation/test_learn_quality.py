"""The estimate of the DSC that validation cases teach."""

import math

import numpy as np
import pytest

from attn_unet_jax.evaluation.learn_quality import MIN_CASES, _fit_ridge, learn_quality
from attn_unet_jax.inference.quality import FEATURES, QualityModel


def _cases(count, rule, seed=0):
  """Draws features, and the DSC that a rule makes of them."""
  rng = np.random.default_rng(seed)
  features = [[dict(zip(FEATURES, rng.uniform(0.3, 0.9, 6), strict=True))] for _ in range(count)]
  volumes = {"volume_ml": 50.0, "reference_volume_ml": 60.0}
  return features, [{"pancreas": {"dsc": rule(case[0]), **volumes}} for case in features]


def _learn(features, scores):
  return learn_quality(features, scores, "pancreas", 0)


def test_with_few_cases_the_expected_dice_is_shifted():
  model = _learn(*_cases(5, lambda case: case["expected_dice"] - 0.1))
  assert model.weights == QualityModel().weights
  assert model.intercept == pytest.approx(-0.1)
  assert model.cases == 5
  assert _learn(*_cases(2, lambda case: 0.5)) == QualityModel()


def test_with_many_cases_what_predicts_better_is_learnt():
  features, scores = _cases(30, lambda case: 0.9 - 0.5 * case["shell_entropy"])
  model = _learn(features, scores)
  others, truth = _cases(10, lambda case: 0.9 - 0.5 * case["shell_entropy"], seed=1)
  found = [model.estimate(case[0]) for case in others]
  np.testing.assert_allclose(found, [one["pancreas"]["dsc"] for one in truth], atol=0.01)
  # What nothing predicts is not learnt.
  rng = np.random.default_rng(5)
  model = _learn(*_cases(30, lambda case: case["expected_dice"] + rng.normal(0, 0.01)))
  assert model.weights == QualityModel().weights


def test_the_error_without_a_case_is_that_of_a_fit_without_it():
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(MIN_CASES + 3, 6)), rng.normal(size=MIN_CASES + 3)
  x[:, 3] = 1.0  # the same in all cases
  mean, sd = x.mean(0), np.where(x.std(0) > 0, x.std(0), 1)
  errors = {}
  for penalty in (0.1, 1.0, 10.0, 100.0):
    left = []
    for i in range(len(y)):
      rest = np.arange(len(y)) != i
      z = np.column_stack([np.ones(len(y)), (x - mean) / sd])
      cost = np.diag([0.0] + 6 * [penalty])
      weights = np.linalg.solve(z[rest].T @ z[rest] + cost, z[rest].T @ y[rest])
      left.append(y[i] - z[i] @ weights)
    errors[penalty] = math.sqrt(np.mean(np.square(left)))
  assert _fit_ridge(x, y)[1] == pytest.approx(min(errors.values()))


def test_the_threshold_lies_below_all_validation_cases():
  features, scores = _cases(8, lambda case: case["expected_dice"])
  model = _learn(features, scores)
  lowest = min(case[0]["expected_dice"] for case in features)
  assert model.threshold <= lowest
  scores[0]["pancreas"]["dsc"] = math.nan  # a case without the class teaches nothing
  assert _learn(features, scores).cases == 7


def test_two_empty_masks_teach_nothing_and_a_missed_organ_does():
  """By the rule `one` they have a DSC of 1, and all features of an empty mask are 0."""
  features, scores = _cases(8, lambda case: case["expected_dice"] - 0.1)
  expected = _learn(features, scores)
  features.append([dict.fromkeys(FEATURES, 0.0)])
  agreed = {"dsc": 1.0, "volume_ml": 0.0, "reference_volume_ml": 0.0}
  assert _learn(features, [*scores, {"pancreas": agreed}]) == expected
  missed = {"dsc": 0.0, "volume_ml": 0.0, "reference_volume_ml": 60.0}
  assert _learn(features, [*scores, {"pancreas": missed}]).cases == 9
