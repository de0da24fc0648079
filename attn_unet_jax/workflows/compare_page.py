"""Makes the page of a comparison: the table, each case by two runs, and what differs most."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from attn_unet_jax.cases.fold import DataFold, open_fold
from attn_unet_jax.config.stored import load_config
from attn_unet_jax.drawing.page.comparison import ComparisonPage, Scatter, write_comparison
from attn_unet_jax.drawing.page.volumes import EmbeddedCase, embed_case
from attn_unet_jax.evaluation.compared_runs import ScoredRun
from attn_unet_jax.evaluation.comparison import ComparisonTable
from attn_unet_jax.evaluation.comparison_text import (
  explain_table,
  render_cells,
  render_commands,
  render_differences,
)
from attn_unet_jax.evaluation.missing_truth import TRUTH, find_missing_truth
from attn_unet_jax.labels import class_names
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.volumes.checks import check_pair
from attn_unet_jax.volumes.nifti import read_label
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.report_run import find_prediction, read_truth

_MAX_PICTURED = 6
# Beyond it a slice is thinned: the page holds a picture of each case by each run.
_MAX_VOXELS = 400 * 400


def render_comparison(
  table: ComparisonTable,
  runs: Sequence[ScoredRun],
  command: Sequence[str],
  title: str,
  note: str,
  part: str,
) -> str:
  """Returns the page; without the data or the masks it has no pictures, and says why."""
  pictures, missing = _draw_cases(table.metrics[0], runs, part)
  # Scores are looked up by the full paths, and so only the table gets the short names.
  names = _shorten_names(runs)
  table = dataclasses.replace(
    table, rows=[dataclasses.replace(row, run=names[row.run]) for row in table.rows]
  )
  head, *rows = render_cells(table, shown=True, with_config=False)
  classes, unknown = _list_classes(runs[0])
  return write_comparison(
    ComparisonPage(
      title=title or "Comparison of runs",
      lead=note
      or f"{len(runs)} runs on their {part} cases, each compared with {names[runs[0].name]}.",
      head=head,
      rows=rows,
      metrics=table.metrics,
      differences=render_differences(table),
      notes=[explain_table(table), *(f"{one}." for one in table.notes), *missing],
      classes=classes,
      scatters=_list_scatters(table, runs, names),
      runs=[*names.values()],
      pictures=pictures,
      unknown=unknown,
      record=[("Made by", render_commands(runs, command))],
    )
  )


def _list_classes(run: ScoredRun) -> tuple[Sequence[str], Sequence[str]]:
  """Returns the classes of a run's masks, and those of them without a truth."""
  # Scores of another program come without a config: its classes are those that were scored.
  if not run.config:
    return [*run.scores], []
  labels = str(run.config["data.labels"])
  volumes = {
    name: [case.get(TRUTH, math.nan) for case in cases.values()]
    for name, cases in run.scores.items()
  }
  return class_names(labels), find_missing_truth(labels, volumes).classes


def _shorten_names(runs: Sequence[ScoredRun]) -> dict[str, str]:
  """Returns by the path of a run what it is called on the page: its folder, if that is unique."""
  # Resolved, since `.` is no name.
  short = {run.name: Path(run.name).resolve().name for run in runs}
  return short if len(set(short.values())) == len(short) else {name: name for name in short}


def _list_scatters(
  table: ComparisonTable, runs: Sequence[ScoredRun], names: Mapping[str, str]
) -> list[Scatter]:
  """Lists a diagram for each metric, class and run but the first."""
  first, *others = runs
  tested = {(row.run, row.name): row for row in table.rows}
  found = []
  for metric in table.metrics:
    for name in dict.fromkeys(row.name for row in table.rows):
      for run in others:
        about, row = "", tested[names[run.name], name]
        # The first metric alone is tested.
        if metric == table.metrics[0] and row.tests:
          n, difference, p_wilcoxon, p_t = row.tests
          about = (
            f"Mean difference, {names[run.name]} less {names[first.name]}: {difference:+.3f} over "
            f"{n} cases; p {_show(p_wilcoxon)} by Wilcoxon's signed rank test "
            f"({_show(row.p_holm)} adjusted by Holm's rule), {_show(p_t)} by the paired t test."
          )
        cases = _pair_scores(first, run, name, metric)
        if cases:
          title = f"{name}: {metric}"
          found.append(Scatter(title, names[first.name], names[run.name], cases, about))
  return found


def _show(p: float) -> str:
  return "undefined" if math.isnan(p) else f"{p:.3g}"


def _pair_scores(
  first: ScoredRun, second: ScoredRun, name: str, metric: str
) -> list[tuple[str, float, float]]:
  """Returns the cases that both runs have a score of, with both."""
  a, b = first.scores[name], second.scores[name]
  pairs = [(case, a[case][metric], b[case][metric]) for case in sorted(a.keys() & b.keys())]
  # A diagram has no place for an undefined score.
  return [pair for pair in pairs if all(map(math.isfinite, pair[1:]))]


def _rank_differences(metric: str, runs: Sequence[ScoredRun]) -> list[str]:
  """Returns the cases of all runs by the range of their scores, the largest first."""
  ranges: dict[str, float] = {}
  for name in runs[0].scores:
    tables = [run.scores.get(name, {}) for run in runs]
    # A case that a run has no score of would have the range of the others.
    for case in set.intersection(*(set(table) for table in tables)):
      values = [table[case][metric] for table in tables]
      if all(map(math.isfinite, values)):
        ranges[case] = max(ranges.get(case, 0.0), max(values) - min(values))
  # By name where ranges are equal, so that the page is the same each time.
  return sorted(ranges, key=lambda case: (-ranges[case], case))


def _draw_cases(
  metric: str, runs: Sequence[ScoredRun], part: str
) -> tuple[list[tuple[str, list[EmbeddedCase]]], list[str]]:
  """Returns the pictures of the cases that differ most, and sentences about missing ones."""
  workdir = Path(runs[0].name)
  if not all(run.config for run in runs):
    return [], ["There are no pictures, since a folder of scores alone does not name its data."]
  try:
    data = load_config(workdir / "config.json").data
    # A case that is gone has no picture, and takes none from the others.
    fold = open_fold(data, workdir / "folds.json", without_gone=True)
  except UserError as error:
    return [], [f"There are no pictures, since the data is not there: {error}"]
  found, missing = list[tuple[str, list[EmbeddedCase]]](), list[str]()
  for case_id in _rank_differences(metric, runs)[:_MAX_PICTURED]:
    try:
      found.append((case_id, _draw_case(case_id, fold, metric, runs, part)))
    except UserError as error:
      missing.append(f"There is no picture of {case_id}: {error}")
  return found, missing


def _draw_case(
  case_id: str, fold: DataFold, metric: str, runs: Sequence[ScoredRun], part: str
) -> list[EmbeddedCase]:
  """Draws one slice of a case by each run: the one in which their masks differ most."""
  if case_id not in fold.dataset.ids:
    raise UserError("it is no longer in the data")
  case = fold.dataset.load(case_id)
  image = to_canonical(case.image)
  truth = to_canonical(read_truth(case, fold)).array
  masks = []
  for run in runs:
    path = find_prediction(Path(run.name), case_id, part)
    prediction = read_label(path)
    # A mask on another grid would be drawn somewhere else in the body.
    check_pair(case.image.grid, prediction.grid, (case_id, path), ("scan", "prediction"))
    masks.append(_match_classes(to_canonical(prediction).array, run, runs[0]))
  # Where all masks agree, the slice with most of the truth shows what they agree on.
  differ = np.any([mask != masks[0] for mask in masks[1:]], 0)
  number = (
    int(differ.sum((0, 1)).argmax()) if differ.any() else int((truth > 0).sum((0, 1)).argmax())
  )
  layer = slice(number, number + 1)
  shown = np.any([mask[:, :, layer] > 0 for mask in (truth, *masks)], 0)
  affine = image.affine.copy()
  # The slice stays where it is in the scan.
  affine[:3, 3] += affine[:3, 2] * number
  return [
    embed_case(
      f"{case_id}, {name}",
      "",
      _describe_scores(run, case_id, metric),
      Volume(image.array[:, :, layer], affine),
      truth[:, :, layer],
      mask[:, :, layer],
      _MAX_VOXELS,
      one_slice=True,
      around=shown,
    )
    for run, name, mask in zip(runs, _shorten_names(runs).values(), masks, strict=True)
  ]


def _match_classes(mask: np.ndarray, run: ScoredRun, first: ScoredRun) -> np.ndarray:
  """Returns a mask of class indices of a run as those of the first run, by the classes' names.

  What the first run has no class for becomes background.
  """
  theirs, ours = (class_names(str(one.config["data.labels"])) for one in (run, first))
  if theirs == ours:
    return mask
  matched = np.zeros_like(mask)
  for number, name in enumerate(theirs, 1):
    if name in ours:
      matched[mask == number] = ours.index(name) + 1
  return matched


def _describe_scores(run: ScoredRun, case_id: str, metric: str) -> str:
  scores = {name: cases[case_id][metric] for name, cases in run.scores.items() if case_id in cases}
  # Of a single class everybody knows which one is meant.
  several = len(scores) > 1
  return ", ".join(
    f"{name} {metric} {value:.3f}" if several else f"{metric} {value:.3f}"
    for name, value in scores.items()
  )
