"""Writes the page of a run, `report.html`: its summary, curves, scores and cases."""

import csv
import functools
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attn_unet_jax.cases.dataset import NativeCase
from attn_unet_jax.cases.fold import DataFold, open_fold
from attn_unet_jax.cases.prepare import native_classes
from attn_unet_jax.cases.target import native_boundary
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.config.stored import load_config
from attn_unet_jax.drawing.page.attention import describe_places
from attn_unet_jax.drawing.page.document import RunPage, write_document
from attn_unet_jax.drawing.page.overlays import ABOUT_ENTROPY, ABOUT_GATES
from attn_unet_jax.drawing.page.volumes import MAX_VOXELS, EmbeddedCase, embed_case
from attn_unet_jax.evaluation.gate_places import average_cases, read_gate_means
from attn_unet_jax.evaluation.missing_truth import TRUTH, find_missing_truth
from attn_unet_jax.evaluation.published import list_published
from attn_unet_jax.labels import class_names
from attn_unet_jax.runs.attention_csv import GateRow, average_runs, read_gate_rows
from attn_unet_jax.runs.folder import has_progress
from attn_unet_jax.runs.metrics_csv import read_metrics
from attn_unet_jax.runtime.console import print_line, show_progress
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import check_writable, read_json_object, write_text
from attn_unet_jax.volumes.box import Box
from attn_unet_jax.volumes.checks import check_pair
from attn_unet_jax.volumes.nifti import read_label, read_nifti
from attn_unet_jax.volumes.orientation import to_canonical
from attn_unet_jax.volumes.volume import Volume
from attn_unet_jax.workflows.evaluate_run import UNCERTAINTY
from attn_unet_jax.workflows.fold_runs import list_fold_runs
from attn_unet_jax.workflows.measure_attention import (
  ATTENTION,
  MeasureAttention,
  measure_places,
  open_attention,
)
from attn_unet_jax.workflows.run_facts import WAY_OUT, list_drawn, list_facts

REPORT = "report.html"
_MAX_PICTURED = 20  # of which two worst, two median and two best are shown whole
_THUMBNAIL_VOXELS = 160 * 160


def report_run(workdir: Path, *, attention: bool = False) -> Path:
  """Writes the page of a run into its folder; returns the page.

  A page needs no more than the run's `config.json`. What else is missing is said in it.

  Args:
    workdir: the folder of the run.
    attention: whether the network looks at the cases of the viewer again, for the coefficients of
      its gates.

  Raises:
    UserError: there is no run, a file of it is damaged, or the page cannot be written.
  """
  config = load_config(workdir / "config.json")
  # Before the cases are read for the pictures.
  check_writable(workdir)
  record = read_json_object(workdir / "run.json", WAY_OUT)
  summary = read_json_object(workdir / "evaluation" / "summary.json", WAY_OUT)
  scores = _read_scores(workdir / "evaluation" / "cases.csv")
  fold_runs = list_fold_runs(workdir)
  measure = _open_attention(workdir, fold_runs) if attention else None
  # Each case is in the file of the fold that tests it.
  gates = {
    case: means
    for one in fold_runs or [workdir]
    for case, means in read_gate_means(one / "evaluation" / ATTENTION).items()
  }
  shown, thumbnails, notes = _draw_cases(workdir, config, scores, measure)
  classes = class_names(config.data.labels)
  missing = find_missing_truth(config.data.labels, _collect_volumes(scores))
  page = RunPage(
    title=f"Run {workdir.resolve().name}",
    lead=f"A network that outlines {', '.join(classes)} in CT scans. {_describe_state(record)}",
    facts=list_facts(config, record, workdir, summary),
    notes=[*list_drawn(config), *missing.describe(), *notes],
    metrics=read_metrics(workdir / "metrics.csv"),
    fold_metrics={one.name: read_metrics(one / "metrics.csv") for one in fold_runs},
    classes=classes,
    summary=summary,
    scores=scores,
    unknown=missing.classes,
    published=list_published(config.data.dataset, classes),
    shown=shown,
    thumbnails=thumbnails,
    gates=average_cases(gates),
    gate_cases=gates,
    gate_epochs=_read_gate_epochs(workdir, fold_runs),
    record=[
      # Shown as they are, whatever bytes somebody has put into them.
      (name, (workdir / name).read_text(errors="replace"))
      for name in ("config.json", "run.json", "folds.json")
      if (workdir / name).is_file()
    ],
  )
  path = workdir / REPORT
  try:
    write_text(path, write_document(page))
  except OSError as error:
    raise UserError(f"{path}: cannot be written ({error.strerror})") from None
  return path


def report_after_training(workdir: Path) -> None:
  """Writes the page of a run that is done; says what prevents it and raises nothing.

  A run that was trained and tested for days has not failed because a page of it could not be made.
  """
  try:
    print_line(f"report: {report_run(workdir)}")
  except Exception as error:
    print_line(
      f"no report ({type(error).__name__}: {error}); the run is complete. "
      f"python -m attn_unet_jax.report --workdir={workdir} tries again"
    )


def rank_cases(scores: Sequence[Mapping[str, str]]) -> list[tuple[str, float]]:
  """Returns the cases with their mean DSC over the classes, the worst first.

  A case without any DSC, in which no class can be missed, counts as the best.
  """
  found: dict[str, list[float]] = {}
  for row in scores:
    value = _to_float(row.get("dsc"))
    found.setdefault(row["case"], []).extend([value] if math.isfinite(value) else [])
  means = [(case, statistics.fmean(some) if some else math.nan) for case, some in found.items()]
  # Sorting by NaN alone would leave the order to chance; by name where two are equal.
  return sorted(means, key=lambda one: (math.isnan(one[1]), one[1], one[0]))


def choose_roles(count: int) -> dict[int, str]:
  """Returns what a case is shown for by its rank of `count`: worst, median or best."""
  middle = (count - 1) // 2
  wanted = (
    (0, "worst"),
    (middle, "median"),
    (count - 1, "best"),
    (1, "second worst"),
    (count - 2, "second best"),
    (middle + 1, "next to the median"),
  )
  roles: dict[int, str] = {}
  for rank, role in wanted:
    if 0 <= rank < count:
      # Of few cases one may be both the worst and the median: the first role counts.
      roles.setdefault(rank, role)
  return dict(sorted(roles.items()))


def _open_attention(workdir: Path, fold_runs: Sequence[Path]) -> MeasureAttention:
  """Opens the gates of a run; of a run of all folds, those of the fold that tests each case."""
  if not fold_runs:
    return open_attention(workdir)
  # A network for each fold that a shown case is of, and not for each case.
  open_once = functools.cache(open_attention)
  # A network without gates is refused before anything is drawn.
  # The first fold that is trained; without any, the first one says what is missing.
  open_once(next(filter(has_progress, fold_runs), fold_runs[0]))

  def measure(image: Volume, box: Box | None, case_id: str) -> dict[str, Volume]:
    """Measures the gates of the fold that tests the case."""
    return open_once(_find_run(workdir, _name_prediction(case_id)))(image, box, case_id)

  return measure


def _read_gate_epochs(workdir: Path, fold_runs: Sequence[Path]) -> list[GateRow]:
  """Reads where the gates looked after each epoch; of a run of all folds, the mean over them."""
  if not fold_runs:
    return read_gate_rows(workdir / ATTENTION)
  return average_runs([read_gate_rows(one / ATTENTION) for one in fold_runs])


def _draw_cases(
  workdir: Path,
  config: RunConfig,
  scores: Sequence[Mapping[str, str]],
  measure: MeasureAttention | None,
) -> tuple[list[EmbeddedCase], list[EmbeddedCase], list[str]]:
  """Returns the cases of the viewer, the thumbnails, and sentences about what is missing."""
  if not scores:
    return [], [], []
  try:
    fold = open_fold(config.data, workdir / "folds.json", without_gone=True)
  except UserError as error:
    return [], [], [f"There are no pictures, since the data is not there: {error}"]
  ranked = rank_cases(scores)
  roles = choose_roles(len(ranked))
  others = [rank for rank in range(len(ranked)) if rank not in roles]
  # The worst of the others, since ranks are in order and failures are worth a look.
  others = others[: _MAX_PICTURED - len(roles)]
  # Of several classes the table has a DSC each, and none of them need be this one.
  score_name = "DSC" if len({row["class"] for row in scores}) == 1 else "mean DSC"
  shown, thumbnails, notes = list[EmbeddedCase](), list[EmbeddedCase](), list[str]()
  for rank in show_progress([*roles, *others], len(roles) + len(others), "cases"):
    case_id, dsc = ranked[rank]
    score = f"{score_name} {dsc:.3f}" if math.isfinite(dsc) else "no DSC"
    try:
      case = _embed(workdir, fold, case_id, roles.get(rank, ""), score, measure)
    except UserError as error:
      notes.append(f"There is no picture of {case_id}: {error}")
      continue
    (shown if rank in roles else thumbnails).append(case)
  if left_out := len(ranked) - len(roles) - len(others):
    notes.append(
      f"{left_out} cases with better scores are in the table and not among the pictures."
    )
  return shown, thumbnails, notes


def _embed(
  workdir: Path,
  fold: DataFold,
  case_id: str,
  role: str,
  score: str,
  measure: MeasureAttention | None,
) -> EmbeddedCase:
  path = find_prediction(workdir, case_id)
  if case_id not in fold.dataset.ids:
    raise UserError("it is no longer in the data")
  prediction = read_label(path)
  case = fold.dataset.load(case_id)
  check_pair(case.image.grid, prediction.grid, (case_id, path), ("scan", "prediction"))
  truth = read_truth(case, fold)
  maps, about = dict[str, Volume](), dict[str, str]()
  # Only for cases of the viewer: a thumbnail has no maps.
  if measure and role:
    box = fold.boxes[case_id] if fold.boxes else None
    found = measure(case.image, box, case_id)
    means = measure_places(found, case, fold)
    maps = {f"attention {gate}": one for gate, one in found.items()}
    about = {
      f"attention {gate}": f"{describe_places(means[gate])}; {ABOUT_GATES}" for gate in found
    }
  if role and (doubt := _read_uncertainty(workdir, case_id, case.image)):
    maps["uncertainty"] = doubt
    about["uncertainty"] = ABOUT_ENTROPY
  voxels = MAX_VOXELS if role else _THUMBNAIL_VOXELS
  return embed_case(
    case_id,
    role,
    score,
    case.image,
    truth.array,
    prediction.array,
    voxels,
    one_slice=not role,
    maps=maps,
    about_maps=about,
  )


def read_truth(case: NativeCase, fold: DataFold) -> Volume:
  """Returns what was to be learnt of a case, class indices on its own grid."""
  truth = native_classes(case, fold.mapping)
  if fold.data.target == "boundary":
    return native_boundary(truth, fold.data.spacing_mm)
  return truth


def find_prediction(workdir: Path, case_id: str, part: str = "test") -> Path:
  """Returns the file of a case's mask: the run's, or that of the fold that tests the case."""
  return _find_of_case(workdir, _name_prediction(case_id, part))


def _name_prediction(case_id: str, part: str = "test") -> str:
  beside = "" if part == "test" else f"{part}/"
  return f"predictions/{beside}{case_id}.nii.gz"


def _find_of_case(workdir: Path, name: str) -> Path:
  """Returns a file of a case: the run's, or that of the fold that tests the case."""
  return _find_run(workdir, name) / name


def _find_run(workdir: Path, name: str) -> Path:
  """Returns the run that has a file of a case: the fold that tests the case, or the run itself."""
  return next((one for one in list_fold_runs(workdir) if (one / name).exists()), workdir)


def _read_uncertainty(workdir: Path, case_id: str, image: Volume) -> Volume | None:
  """Reads the map that `evaluate --save_uncertainty` wrote for a mask; None where it did not."""
  path = _find_of_case(workdir, f"{UNCERTAINTY}/{case_id}.nii.gz")
  if not path.is_file():
    return None
  found = read_nifti(path)
  check_pair(image.grid, found.grid, (case_id, path), ("scan", "uncertainty"))
  # The viewer shows all scans on these axes.
  return to_canonical(found)


def _describe_state(record: Mapping[str, Any]) -> str:
  if not record:
    return "It has no run.json: it was not trained here."
  ends = {"done": "It is trained and tested.", "running": "It is being trained, or was killed."}
  said = ends.get(record.get("exit", ""), f"It ended by {record.get('exit')}.")
  return f"{said} Last start: {record.get('started', 'unknown')}."


def _read_scores(path: Path) -> list[dict[str, str]]:
  """Reads `cases.csv`; a missing file has no rows.

  Raises:
    UserError: the file is not as `write_scores` writes it.
  """
  if not path.is_file():
    return []
  # Of a row that is too long DictReader puts the rest under None, and None into one that is short.
  rows = list(csv.DictReader(path.read_text(errors="replace").splitlines()))
  if any(
    not {"case", "class"} <= row.keys() or None in row or None in row.values() for row in rows
  ):
    raise UserError(f"{path}: not a table of scores; {WAY_OUT}")
  return rows


def _collect_volumes(scores: Sequence[Mapping[str, str]]) -> dict[str, list[float]]:
  """Returns by class the volume of the truth in each case."""
  found: dict[str, list[float]] = {}
  for row in scores:
    found.setdefault(row["class"], []).append(_to_float(row.get(TRUTH)))
  return found


def _to_float(text: str | None) -> float:
  try:
    return float(text or "nan")
  except ValueError:
    return math.nan
