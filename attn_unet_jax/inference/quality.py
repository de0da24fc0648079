"""How good a mask probably is: its expected DSC, by probabilities and agreement of networks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from attn_unet_jax.inference.segment import ScanProbabilities
from attn_unet_jax.volumes.box import bounding_slices

EXPECTED = "expected_dice"
FEATURES = (EXPECTED, "self_dice", "mean_probability", "shell_entropy", "log_volume", "components")
_FACES = ndimage.generate_binary_structure(3, 1)


@dataclass(frozen=True)
class QualityModel:
  """A linear estimate of the DSC of one class: intercept + sum of weight times feature, in [0, 1].

  Attributes:
    weights: by the names of `FEATURES`; by default the expected DSC is taken as it is.
    intercept: what is added.
    threshold: an estimate below it is doubtful; None: it is not known what is.
    cases: the validation cases that it was learnt on.
  """

  weights: tuple[float, ...] = (1.0, *[0.0] * (len(FEATURES) - 1))
  intercept: float = 0.0
  threshold: float | None = None
  cases: int = 0

  def estimate(self, features: Mapping[str, float]) -> float:
    """Returns the estimated DSC, in [0, 1]."""
    total = sum(w * features[name] for w, name in zip(self.weights, FEATURES, strict=True))
    return float(np.clip(self.intercept + total, 0, 1))


@dataclass(frozen=True)
class MaskQuality:
  """The estimated DSC of a class, and whether that is too low to be believed without a look."""

  expected_dsc: float
  doubtful: bool = False


def estimate_quality(
  found: ScanProbabilities, models: Mapping[str, QualityModel], agreement: Sequence[float] = ()
) -> dict[str, MaskQuality]:
  """Estimates the DSC of each class.

  Where several runs are averaged, the estimate is at most the DSC of their masks with that of the
  mean. If the truth was one more opinion like theirs, that would be its DSC too. (Roy et al. 2019,
  "Bayesian QuickNAT", estimate by the agreement of samples.)

  Args:
    found: what a system says about a scan.
    models: by class, in the order of their values 1, 2, ...
    agreement: of the members of an ensemble, for each class; (): there are none.
  """
  answers = {}
  limits = agreement or [1.0] * len(models)  # which no DSC exceeds
  for features, limit, (name, model) in zip(
    measure_features(found), limits, models.items(), strict=True
  ):
    expected = min(model.estimate(features), limit)
    doubtful = model.threshold is not None and expected < model.threshold
    answers[name] = MaskQuality(expected, doubtful)
  return answers


def average_models(models: Sequence[QualityModel]) -> QualityModel:
  """Returns the model whose estimate is the mean of those of several."""
  known = [model.threshold for model in models if model.threshold is not None]
  return QualityModel(
    tuple(float(w) for w in np.mean([model.weights for model in models], axis=0)),
    float(np.mean([model.intercept for model in models])),
    # A mean of some thresholds would not belong to the mean of all estimates.
    float(np.mean(known)) if len(known) == len(models) else None,
    sum(model.cases for model in models),
  )


def measure_features(found: ScanProbabilities) -> list[dict[str, float]]:
  """Measures for each class but the background what tells a good mask from a bad one.

  With the probabilities p of a class and the mask of the voxels where it is the likeliest one:

    expected_dice     2 sum_mask p / (|mask| + sum p): the DSC that the probabilities expect
    self_dice         sum p^2 / sum p
    mean_probability  mean of p in the mask
    shell_entropy     mean entropy of p in the voxels on both sides of the mask's surface, 0 to 1
    log_volume        ln(1 + ml)
    components        ln of the number of the mask's components

  All are 0 for an empty mask.
  """
  labels = find_likeliest(found.values)
  voxel_ml = found.grid.voxel_volume_ml
  return [
    _measure_class(found.values[..., index], labels == index, voxel_ml)
    for index in range(1, found.values.shape[-1])
  ]


def find_likeliest(values: np.ndarray) -> np.ndarray:
  """Returns the likeliest class of each voxel, uint8 [X, Y, Z]."""
  # Plane by plane: indices of the whole scan would be int64, 8 bytes a voxel.
  labels = np.empty(values.shape[:-1], np.uint8)
  for plane, probabilities in zip(labels, values, strict=True):
    plane[:] = probabilities.argmax(-1)
  return labels


def _measure_class(p: np.ndarray, mask: np.ndarray, voxel_ml: float) -> dict[str, float]:
  where = bounding_slices(mask)
  if where is None:
    return dict.fromkeys(FEATURES, 0.0)
  voxels = int(np.count_nonzero(mask))
  total, inside = float(p.sum(dtype=np.float64)), float(p[mask].sum(dtype=np.float64))
  # One class of several lies scattered in memory, so that `vdot` copies what it is given.
  squares = sum(float(np.vdot(plane, plane)) for plane in p)
  # Organs are small: the rest is done in their box, and a voxel around it for the shell.
  box = tuple(slice(max(0, part.start - 1), part.stop + 1) for part in where)
  near, local = p[box], mask[box]
  shell = ndimage.binary_dilation(local, _FACES) & ~ndimage.binary_erosion(local, _FACES)
  return {
    EXPECTED: 2 * inside / (voxels + total),
    "self_dice": squares / total,
    "mean_probability": inside / voxels,
    "shell_entropy": _mean_entropy(near[shell]),
    "log_volume": float(np.log1p(voxels * voxel_ml)),
    "components": float(np.log(ndimage.label(local, np.ones((3, 3, 3)))[1])),
  }


def _mean_entropy(p: np.ndarray) -> float:
  """Returns the mean entropy of probabilities of one class against the others, in bits."""
  if not p.size:  # a mask that fills its scan has no surface
    return 0.0
  p = np.clip(p.astype(np.float64), 1e-12, 1 - 1e-12)  # 0 has no logarithm
  return float(np.mean(-p * np.log2(p) - (1 - p) * np.log2(1 - p)))
