"""Chooses the steps after the network by the scores of validation cases, and of no other ones."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from attn_unet_jax.cases.dataset import NativeCase
from attn_unet_jax.cases.fold import DataFold
from attn_unet_jax.evaluation.options import ScoringRecipe
from attn_unet_jax.evaluation.overlap import Scores, average_dsc, score_case
from attn_unet_jax.evaluation.scoring import always_box, make_reference
from attn_unet_jax.inference.postprocess import UNCHANGED, Postprocessing, postprocess_mask
from attn_unet_jax.inference.segment import ScanProbabilities, make_labels, predict_scan
from attn_unet_jax.inference.sliding import SegmentationSystem
from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.runtime.console import show_progress
from attn_unet_jax.volumes.shear import straighten_labels

MIN_CASES = 3  # with fewer, any choice fits them by chance
_MIN_GAIN = 0.002  # of the mean DSC
# The default comes first: of equal scores the first candidate is picked.
_THRESHOLDS = (0.5, 0.3, 0.4, 0.6, 0.7)
_SMALLEST_ML = (0.1, 0.5, 2.0)


class ChosenSteps(NamedTuple):
  """What was chosen.

  Attributes:
    steps: the steps; `UNCHANGED` where none of them is a real gain.
    before: the mean DSC of the validation cases without them; NaN if no case has a DSC.
    after: with them.
    cases: the number of validation cases.
    scores: of each of them, with the steps.
  """

  steps: Postprocessing
  before: float
  after: float
  cases: int
  scores: Sequence[Scores] = ()


def list_candidates(values: tuple[int, ...] = ()) -> list[Postprocessing]:
  """Lists the steps to choose from, those that do least first, and nothing at all before them.

  Args:
    values: the classes that they are for; (): every class.
  """
  components = [{}, {"largest": True}, *({"smallest_ml": ml} for ml in _SMALLEST_ML)]
  found = [
    Postprocessing(threshold=threshold, fill_holes=fills, **rule)  # type: ignore[arg-type]
    for threshold in _THRESHOLDS
    for fills in (False, True)
    for rule in components
  ]
  for_values = [dataclasses.replace(steps, values=values) for steps in found if steps != UNCHANGED]
  return [UNCHANGED, *sorted(for_values, key=_count_changes)]


def _count_changes(steps: Postprocessing) -> int:
  pairs = zip(dataclasses.astuple(steps), dataclasses.astuple(UNCHANGED), strict=True)
  return sum(own != default for own, default in pairs)


def choose_steps(
  fold: DataFold,
  ids: Sequence[str],
  system: SegmentationSystem,
  recipe: ScoringRecipe,
  observe: Callable[[ScanProbabilities], object] | None = None,
) -> ChosenSteps:
  """Chooses the steps with the highest mean DSC over cases; the network runs once for each case.

  A gain is real if it is at least 0.002 and more than its standard error over the cases. That must
  hold for the steps themselves, and for the choice, since the best of many candidates gains by
  chance: the steps that are best on all cases but one are tried on that one, in turn (Stone 1974:
  cross-validatory choice and assessment). Where no gain is real, or there are fewer than
  `MIN_CASES` cases, nothing is chosen. So the score of the cases that it was chosen on is never
  lower than without.

  Args:
    fold: the data set, its labels and boxes.
    ids: the validation cases.
    system: segments a working-grid volume.
    recipe: the options of the prediction and of its scores.
    observe: is given what the system says about each case, in their order.
  """
  candidates = [UNCHANGED]
  if len(ids) >= MIN_CASES:
    labelled = tuple(fold.mapping.labelled_indices.values())
    # Whether steps help a class without labels, no score can tell.
    candidates = list_candidates(labelled if len(labelled) < len(fold.mapping.classes) else ())
  rows: dict[Postprocessing, list[Scores]] = {steps: [] for steps in candidates}
  for case_id in show_progress(ids, len(ids), "cases"):
    case = fold.dataset.load(case_id)
    locate = always_box(fold.boxes[case_id] if fold.boxes else None)
    found = predict_scan(case.image, system, recipe, locate, case_id)
    if observe:
      observe(found)
    for steps, scores in _score_candidates(fold, case, found, recipe, candidates).items():
      rows[steps].append(scores)
  return pick_steps(rows)


def pick_steps(rows: dict[Postprocessing, list[Scores]]) -> ChosenSteps:
  """Picks the best of the candidates by the scores of each case; see `choose_steps`.

  Args:
    rows: the scores of all cases by candidate, `UNCHANGED` among them; of equals the first is
      picked.
  """
  plain = rows[UNCHANGED]
  before = average_dsc(plain).mean
  best = ChosenSteps(UNCHANGED, before, before, len(plain), plain)
  gains = {steps: _list_gains(plain, scores) for steps, scores in rows.items()}
  if not _is_real(_try_choices(np.array([*gains.values()]))):
    return best
  for steps, scores in rows.items():
    after = average_dsc(scores).mean
    if _is_real(gains[steps]) and after - before >= _MIN_GAIN and after > best.after:
      best = best._replace(steps=steps, after=after, scores=scores)
  return best


def _list_gains(before: Sequence[Scores], after: Sequence[Scores]) -> np.ndarray:
  """Returns by how much each case gains, DSC `[N]`: the mean of its classes; NaN if it has none."""
  gains = np.full(len(before), math.nan)
  for index, (one, other) in enumerate(zip(before, after, strict=True)):
    pairs = [other[name]["dsc"] - one[name]["dsc"] for name in one]
    if defined := [gain for gain in pairs if not math.isnan(gain)]:
      gains[index] = np.mean(defined)
  return gains


def _try_choices(gains: np.ndarray) -> np.ndarray:
  """Returns what each case gains by the steps that are best on all others.

  Args:
    gains: by candidate and case, `[C, N]`.
  """
  known = gains[:, ~np.isnan(gains).any(axis=0)]
  # The sum over the others has the same order as their mean.
  others = known.sum(axis=1, keepdims=True) - known
  # As far as sums are exact: of equal candidates the first, which does least.
  chosen = np.argmax(np.round(others, 12), axis=0)
  result: np.ndarray = known[chosen, np.arange(known.shape[1])]
  return result


def _is_real(gains: np.ndarray) -> bool:
  """Returns whether the mean gain is at least 0.002, and at least its standard error."""
  defined = gains[~np.isnan(gains)]
  if defined.size < 2:
    return False
  error = float(np.std(defined, ddof=1) / math.sqrt(defined.size))
  return float(np.mean(defined)) >= max(_MIN_GAIN, error)


def _score_candidates(
  fold: DataFold,
  case: NativeCase,
  found: ScanProbabilities,
  recipe: ScoringRecipe,
  candidates: Sequence[Postprocessing],
) -> dict[Postprocessing, Scores]:
  """Scores a case with each of the candidates."""
  reference = straighten_labels(make_reference(case, fold, recipe), UNLABELLED, case.id).array
  voxel_ml = found.native.voxel_volume_ml
  scores = {}
  for threshold in dict.fromkeys(steps.threshold for steps in candidates):
    # Interpolated once for all that follows it, and cropped, for organs are small.
    # The labels depend on nothing of the steps but the threshold and the classes.
    first = next(steps for steps in candidates if steps.threshold == threshold)
    labels = make_labels(found, recipe, first)
    classes = fold.mapping.labelled_indices
    # Beyond this box both are background, which adds to no DSC and to no volume.
    where = _find_content((labels > 0) | np.isin(reference, [*classes.values()]))
    for steps in candidates:
      if steps.threshold == threshold:
        scores[steps] = score_case(
          postprocess_mask(labels[where], steps, voxel_ml),
          reference[where],
          classes,
          voxel_ml,
          UNLABELLED,
          recipe.evaluation.empty_masks,
        )
  return scores


def _find_content(mask: np.ndarray) -> tuple[slice, ...]:
  """Returns the smallest box that holds a mask; of an empty one, all of it."""
  boxes = ndimage.find_objects(mask.view(np.uint8))  # SciPy takes no bools
  return boxes[0] if boxes and boxes[0] else tuple(slice(size) for size in mask.shape)
