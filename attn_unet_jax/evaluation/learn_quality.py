"""Learns on validation cases how a mask's DSC follows from the network's probabilities."""

from collections.abc import Mapping, Sequence

import numpy as np

from attn_unet_jax.evaluation.overlap import Scores
from attn_unet_jax.inference.quality import EXPECTED, FEATURES, QualityModel

MIN_CASES = 12  # for as many weights as there are features; with fewer the expected DSC is shifted
_MIN_SHIFTED = 3
_PENALTIES = (0.1, 1.0, 10.0, 100.0)
_GAIN = 0.9  # of the error of the expected DSC, below which the learnt weights are believed


def learn_quality(
  features: Sequence[Sequence[Mapping[str, float]]], scores: Sequence[Scores], name: str, index: int
) -> QualityModel:
  """Learns the estimate of one class.

  The expected DSC is shifted by its mean error. With `MIN_CASES` cases or more, a ridge regression
  on all features takes its place if it errs less on cases that are left out one by one.
  An estimate is doubtful below the lowest of the validation cases, and below their mean less two
  standard deviations. Cases without a DSC, or with the class in neither mask nor reference, teach
  nothing.

  Args:
    features: of each case, what `measure_features` returned.
    scores: of each case.
    name: the class.
    index: its place among the classes.
  """
  pairs = [
    ([case[index][key] for key in FEATURES], one[name]["dsc"])
    for case, one in zip(features, scores, strict=True)
    # The rule `one` calls this a DSC of 1, while all features say 0.
    if one[name]["volume_ml"] or one[name]["reference_volume_ml"]
  ]
  defined = [(x, y) for x, y in pairs if np.isfinite(y)]
  if len(defined) < _MIN_SHIFTED:
    return QualityModel()
  x, y = np.array([x for x, _ in defined]), np.array([y for _, y in defined])
  model, error = _shift_expected(x, y)
  if len(y) >= MIN_CASES:
    learnt, own_error = _fit_ridge(x, y)
    model = learnt if own_error < _GAIN * error else model
  estimates = [model.estimate(dict(zip(FEATURES, row, strict=True))) for row in x.tolist()]
  low = min(min(estimates), float(np.mean(estimates) - 2 * np.std(estimates, ddof=1)))
  return QualityModel(model.weights, model.intercept, max(0.0, low), len(y))


def _shift_expected(x: np.ndarray, y: np.ndarray) -> tuple[QualityModel, float]:
  """Returns the expected DSC less its mean error, and the error on cases that are left out."""
  errors = y - x[:, FEATURES.index(EXPECTED)]
  # Without one case, the mean of the others is off by n / (n - 1) of its deviation.
  left_out = (errors - errors.mean()) * len(y) / (len(y) - 1)
  return QualityModel(intercept=float(errors.mean())), float(np.sqrt(np.mean(left_out**2)))


def _fit_ridge(x: np.ndarray, y: np.ndarray) -> tuple[QualityModel, float]:
  """Returns the ridge regression of the best penalty, and its error on cases that are left out.

  The residual of a case that is left out is its residual divided by 1 - h, the diagonal of the hat
  matrix. (Allen 1974: PRESS.)
  """
  mean, sd = x.mean(0), x.std(0)
  sd = np.where(sd > 1e-9, sd, 1.0)  # a feature that is the same in all cases gets no weight
  z, target = (x - mean) / sd, y - y.mean()
  found = []
  for penalty in _PENALTIES:
    solve = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T)
    weights = solve @ target
    leverage = np.einsum("ij,ji->i", z, solve) + 1 / len(y)
    left_out = (target - z @ weights) / (1 - leverage)
    found.append((float(np.sqrt(np.mean(left_out**2))), weights / sd))
  error, weights = min(found, key=lambda one: one[0])
  intercept = float(y.mean() - weights @ mean)
  return QualityModel(tuple(float(w) for w in weights), intercept), error
