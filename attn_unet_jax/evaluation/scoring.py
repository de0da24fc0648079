"""Segments cases and scores them on their native grids; writes `cases.csv` and `summary.json`."""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attn_unet_jax.cases.dataset import NativeCase
from attn_unet_jax.cases.fold import DataFold
from attn_unet_jax.cases.prepare import native_classes
from attn_unet_jax.cases.target import native_boundary
from attn_unet_jax.evaluation.calibration import measure_calibration
from attn_unet_jax.evaluation.options import (
  EmptyRule,
  EvaluationOptions,
  ScoringRecipe,
  describe_rule,
)
from attn_unet_jax.evaluation.overlap import MeanScore, Scores, average_dsc, score_case
from attn_unet_jax.evaluation.summary import count_cases, list_worst_cases, summarise_scores
from attn_unet_jax.evaluation.summary_text import describe_class
from attn_unet_jax.evaluation.surface import measure_by_area, measure_by_voxels
from attn_unet_jax.evaluation.surface_scores import assd_mm, hausdorff_mm, surface_dice
from attn_unet_jax.inference.doubt import map_entropy
from attn_unet_jax.inference.options import PredictionRecipe
from attn_unet_jax.inference.postprocess import UNCHANGED, Postprocessing
from attn_unet_jax.inference.segment import Locate, ScanProbabilities, make_mask, predict_scan
from attn_unet_jax.inference.sliding import SegmentationSystem
from attn_unet_jax.labels import UNLABELLED, parse_mapping
from attn_unet_jax.runtime.console import print_line, show_progress
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import write_text
from attn_unet_jax.volumes.box import Box, share_inside, share_left_out
from attn_unet_jax.volumes.checks import check_pair
from attn_unet_jax.volumes.nifti import read_label, write_nifti
from attn_unet_jax.volumes.nifti_folder import explain_channel_names, list_nifti_files
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.shear import shear_degrees, straighten_labels
from attn_unet_jax.volumes.volume import Volume

TABLE, SUMMARY = "cases.csv", "summary.json"
_DEFAULTS = EvaluationOptions()


def mean_dsc(
  fold: DataFold, ids: Sequence[str], system: SegmentationSystem, recipe: ScoringRecipe
) -> MeanScore:
  """Returns the mean DSC over cases and foreground classes of whole scans on the native grid.

  Only cases that have a DSC count: by the default rule those whose reference has the class.
  """
  return average_dsc(list(score_cases(fold, ids, system, recipe).values()))


def score_cases(
  fold: DataFold,
  ids: Sequence[str],
  system: SegmentationSystem,
  recipe: ScoringRecipe,
  locate: Locate | None = None,
  predictions: Path | None = None,
  *,
  surfaces: bool = False,
  postprocessing: Postprocessing = UNCHANGED,
  doubts: Path | None = None,
  observe: Callable[[str, ScanProbabilities], object] | None = None,
) -> dict[str, Scores]:
  """Segments cases and returns their scores by case id.

  If only a box of each scan is segmented (the fold's, or the one that `locate` finds), the scores
  include `box_recall` and `box_volume_reduction`.

  Args:
    fold: the data set, its labels and boxes.
    ids: the cases to score.
    system: segments a working-grid volume.
    recipe: the options of the prediction and of its scores.
    locate: finds the box to segment; None: the fold's box, if it has boxes.
    predictions: folder for the predicted masks; None: they are not written.
    surfaces: whether the scores include those of surfaces (ASSD, HD, HD95, NSD), which are slow
      for a scattered prediction, and of calibration (ECE).
    postprocessing: the steps after the network.
    doubts: folder for the entropy of each prediction; None: it is not written.
    observe: is given each case and what the system says about it, before its mask is written.
  """
  rows = {}
  for case_id in show_progress(ids, len(ids), "cases"):
    case = fold.dataset.load(case_id)
    # A system of stages finds its own boxes.
    find = locate or always_box(fold.boxes[case_id] if fold.boxes else None)
    found = predict_scan(case.image, system, recipe, find, case_id)
    if observe:
      observe(case_id, found)
    prediction = make_mask(found, recipe, postprocessing)
    reference = make_reference(case, fold, recipe)
    # Of a class that the data does not label nobody knows what would be right.
    classes, rules = fold.mapping.labelled_indices, recipe.evaluation
    scores = score_prediction(prediction.array, reference, classes, rules, surfaces=surfaces)
    if surfaces:
      errors = measure_calibration(found, prediction, reference, classes, rules.empty_masks)
      for name, error in errors.items():
        scores[name]["ece"] = error
    if found.box:
      _add_box_scores(scores, found.box, reference, classes)
    rows[case_id] = scores
    if predictions:
      # In the file's header, so that a mask says by itself what its values are.
      names = {"background": 0, **fold.mapping.class_indices}
      write_nifti(predictions / f"{case_id}.nii.gz", prediction, label_names=names)
    if doubts:
      write_nifti(doubts / f"{case_id}.nii.gz", map_entropy(found))
  return rows


def score_prediction(
  prediction: np.ndarray,
  reference: Volume,
  classes: Mapping[str, int],
  rules: EvaluationOptions = _DEFAULTS,
  *,
  surfaces: bool = True,
) -> Scores:
  """Scores a label map against another one.

  Voxels are counted as they are. Surfaces of a sheared grid are measured on straight axes.

  Args:
    prediction: label map [X, Y, Z].
    reference: label map on the same grid, `UNLABELLED` where it is unknown.
    classes: label value by class name.
    rules: the rules of the scores.
    surfaces: whether surfaces are scored too.
  """
  scores = score_case(
    prediction,
    reference.array,
    classes,
    reference.voxel_volume_ml,
    UNLABELLED,
    rules.empty_masks,
  )
  if surfaces:
    _add_surface_scores(scores, prediction, reference, classes, rules)
  return scores


def _add_surface_scores(
  scores: Scores,
  prediction: np.ndarray,
  reference: Volume,
  classes: Mapping[str, int],
  rules: EvaluationOptions,
) -> None:
  if shear_degrees(reference.grid):
    # Distances by spacings want perpendicular axes. Both maps are moved by the same whole voxels.
    prediction = straighten_labels(Volume(prediction, reference.affine)).array
    reference = straighten_labels(reference)
  # Predictions in unknown voxels are neither right nor wrong; see `score_case`.
  known = reference.array != UNLABELLED
  for name, value in classes.items():
    masks = (prediction == value) & known, reference.array == value
    distances = measure_by_area(*masks, reference.spacing)
    scores[name] |= {
      "assd_mm": assd_mm(distances),
      "assd_voxels_mm": assd_mm(measure_by_voxels(*masks, reference.spacing)),
      "hd_mm": hausdorff_mm(distances),
      "hd95_mm": hausdorff_mm(distances, 95),
    }
    for tolerance in rules.nsd_mm:
      nsd = surface_dice(distances, tolerance, rules.empty_masks)
      scores[name][f"nsd_{tolerance:g}mm"] = nsd


def make_reference(case: NativeCase, fold: DataFold, recipe: PredictionRecipe) -> Volume:
  """Returns the label map, on the case's own grid, by which predictions of it are scored."""
  # The label is not resampled: scores on the working grid would hide the error of resampling.
  reference = native_classes(case, fold.mapping)
  if recipe.data.target == "boundary":
    return native_boundary(reference, recipe.data.spacing_mm)
  return reference


def always_box(box: Box | None) -> Locate:
  """Returns what finds a given box in every scan; None: the whole scan."""
  return lambda _: box


def _add_box_scores(
  scores: Scores, box: Box, reference: Volume, classes: Mapping[str, int]
) -> None:
  # Boxes are in canonical, straight axes, the case's label in those of its file.
  canonical = straighten_labels(reference)
  for name, value in classes.items():
    mask = Volume(canonical.array == value, canonical.affine)
    scores[name]["box_recall"] = share_inside(box, mask)
    scores[name]["box_volume_reduction"] = share_left_out(box, canonical.grid)


def score_folders(
  prediction: Path, reference: Path, labels: str, rules: EvaluationOptions = _DEFAULTS
) -> dict[str, Scores]:
  """Scores the mask in `prediction` for every mask of the same name in `reference`.

  A line on the screen names predictions without a reference.

  Args:
    prediction: folder of masks.
    reference: folder of masks.
    labels: the meaning of their values, written as for `--labels`.
    rules: the rules of the scores.

  Raises:
    UserError: a folder is empty, a mask is missing, or two masks have different grids.
  """
  # Called as their scans are, which `predict` takes by any name.
  predicted, wanted = (list_nifti_files(path, any_name=True) for path in (prediction, reference))
  missing = sorted(set(wanted) - set(predicted))
  if not wanted or missing:
    what = f"no masks for {missing[:5]}" if missing else "no NIfTI masks"
    # Masks are called as their scans, which may be called after a channel, while labels are not.
    hint = explain_channel_names(set(predicted) - set(wanted), wanted)
    hint = hint or explain_channel_names(missing, predicted)
    raise UserError(f"{prediction if missing else reference}: {what}; names must be the same{hint}")
  # Extra predictions are no error: references may exist for some scans only.
  if extra := sorted(set(predicted) - set(wanted)):
    print_line(f"{prediction}: without a reference, not scored: {len(extra)}, such as {extra[0]}")
  mapping = parse_mapping(labels, None, "labels")
  # Of a class that is none of the values nobody knows what would be right.
  rows, classes = {}, mapping.labelled_indices
  for case_id in show_progress(wanted, len(wanted), "cases"):
    files = predicted[case_id], wanted[case_id]
    # Canonical axes, since two programs may write one mask with different axes.
    answer, truth = (to_canonical(read_label(path)) for path in files)
    # Before values are compared: masks of one shape on other grids have meaningless scores.
    check_pair(truth.grid, answer.grid, files[::-1], ("reference", "prediction"))
    predicted_map = mapping.apply(answer.array, str(files[0]))
    truth = Volume(mapping.apply(truth.array, str(files[1])), truth.affine)
    rows[case_id] = score_prediction(predicted_map, truth, classes, rules)
  return rows


def write_scores(
  rows: Mapping[str, Scores],
  folder: Path,
  about: Mapping[str, Any] | None = None,
  empty: EmptyRule = "reference",
  fold_of: Mapping[str, int] | None = None,
) -> None:
  """Writes `cases.csv` (a line per case and class) and `summary.json`, and prints the means.

  Args:
    rows: scores by case id.
    folder: where the files go.
    about: what else `summary.json` says.
    empty: the rule for empty masks that the scores follow.
    fold_of: the fold of each case, for a column of that name; None: no such column.

  Raises:
    UserError: the folder cannot be written.
  """
  try:
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / TABLE, _format_table(rows, fold_of))
    scores = list(rows.values())
    summary, counts, worst = summarise_scores(scores), count_cases(scores), list_worst_cases(rows)
    # Strict JSON: `allow_nan` would write NaN, which other programs cannot read.
    content = {
      **(about or {}),
      "cases": len(rows),
      "empty_masks": empty,
      "counts": {name: found._asdict() for name, found in counts.items()},
      "classes": {
        name: {metric: _without_nan(found._asdict()) for metric, found in metrics.items()}
        for name, metrics in summary.items()
      },
      "worst": {name: [one._asdict() for one in found] for name, found in worst.items()},
    }
    write_text(folder / SUMMARY, json.dumps(content, indent=2, allow_nan=False) + "\n")
  except OSError as error:
    raise UserError(
      f"{folder}: cannot be written ({error.strerror}); choose another folder"
    ) from None
  for name, metrics in summary.items():
    for line in describe_class(name, metrics, counts[name], worst[name]):
      print_line(line)
  print_line(f"scores: {folder}/{TABLE}, {folder}/{SUMMARY}; {describe_rule(empty)}")


def _without_nan(values: Mapping[str, float]) -> dict[str, float | None]:
  """Replaces NaN by None."""
  # JSON has no NaN: an undefined score is null.
  return {key: None if math.isnan(value) else value for key, value in values.items()}


def _format_table(rows: Mapping[str, Scores], fold_of: Mapping[str, int] | None) -> str:
  text = io.StringIO()
  # All cases and classes have the metrics of the first one, which name the columns.
  first = next(iter(next(iter(rows.values())).values()))
  writer = csv.writer(text, lineterminator="\n")
  writer.writerow(["case", "class", *(["fold"] if fold_of else []), *first])
  for case_id, scores in rows.items():
    for name, metrics in scores.items():
      fold = [fold_of[case_id]] if fold_of else []
      writer.writerow([case_id, name, *fold, *(f"{value:.6g}" for value in metrics.values())])
  return text.getvalue()
