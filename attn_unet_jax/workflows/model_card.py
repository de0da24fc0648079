"""Writes the model card of a run, `MODEL_CARD.md`: what it was made of, its scores, its limits."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attn_unet_jax import __version__
from attn_unet_jax.cases.second_set import second_options
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.config.stored import load_config
from attn_unet_jax.inference.postprocess import UNCHANGED, Postprocessing
from attn_unet_jax.labels import class_names
from attn_unet_jax.runs.release import is_release, read_release
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import read_json_object, write_text
from attn_unet_jax.workflows.run_facts import (
  SECOND_SET,
  START,
  WAY_OUT,
  describe_second_set,
  describe_start,
  list_drawn,
  list_facts,
)
from attn_unet_jax.workflows.scored_network import explain_other_scores
from attn_unet_jax.workflows.stages.chain import BOUNDARY, FIRST, INTERIOR
from attn_unet_jax.workflows.steps_record import read_record, read_steps

CARD = "MODEL_CARD.md"
# By a data set's name or the first part of it, what its makers say.
_LICENCES = {
  "folder_ct/native_msd07_slabs": "CC BY-SA 4.0 (Medical Segmentation Decathlon)",
  "decathlon_pancreas": "CC BY-SA 4.0 (Medical Segmentation Decathlon)",
  "pancreas_ct": "CC BY 3.0 (The Cancer Imaging Archive)",
  "phantom_ct": "drawn by this program (Apache-2.0); no data of patients",
}
_UNKNOWN_LICENCE = "not known to this program; it is that of the data's source"
_LIMITS = (
  "Not a medical device. It is for research, and nobody has reviewed its masks: do not diagnose, "
  "plan, treat or measure a patient by them.",
  "It takes CT in Hounsfield units. Nothing is known of scans unlike its data: of another "
  "protocol, age, disease or pose.",
  "It always answers, also where a scan has none of its classes.",
)


def write_model_card(workdir: Path) -> Path:
  """Writes the card of a run into its folder; returns the file.

  Raises:
    UserError: there is no run, a file of it is damaged, or the card cannot be written.
  """
  path = workdir / CARD
  try:
    write_text(path, describe_model(workdir))
  except OSError as error:
    raise UserError(f"{path}: cannot be written ({error.strerror})") from None
  return path


def write_card_after_training(workdir: Path) -> None:
  """Writes the cards of a run that is done and of its stages.

  Says what prevents it and raises nothing.
  """
  try:
    print_line(f"model card: {write_model_card(workdir)}")
    for stage in (FIRST, INTERIOR, BOUNDARY):
      # Only a run in stages has these folders.
      if (workdir / stage / "config.json").is_file():
        write_model_card(workdir / stage)
  # A run that was trained and tested has not failed because of a page about it.
  except Exception as error:
    print_line(f"no model card ({type(error).__name__}: {error}); the run is complete")


@dataclasses.dataclass(frozen=True)
class ReleaseFacts:
  """What the card of a release says beside what its run's files say.

  Attributes:
    name: what the network is called.
    licence: that of its values.
    trained_on: its data, in words.
    rounding: how its answers differ from the run's, in words.
    summary: the scores of its test cases.
    seeds: that of each network; of several the probabilities are averaged.
    steps: the steps after the network that go with it.
  """

  name: str
  licence: str
  trained_on: str
  rounding: str
  summary: Mapping[str, Any]
  seeds: Sequence[int]
  steps: Postprocessing


@dataclasses.dataclass(frozen=True)
class ExportedAs:
  """What of a run is exported: the checkpoint of a step, and the steps after the network."""

  checkpoint_step: int
  steps: Postprocessing


def describe_model(
  workdir: Path, release: ReleaseFacts | None = None, exported: ExportedAs | None = None
) -> str:
  """Returns the card of a run in Markdown, from its own files; a release has its card with it.

  Args:
    workdir: the folder of the run.
    release: what is said of it where it is released.
    exported: what of it goes to others, whose card has no scores of anything else; None: the card
      lies in the run.

  Raises:
    UserError: there is no run, or a file of it is damaged.
  """
  if is_release(workdir):
    read_release(workdir)  # which finds a damaged card
    return (workdir / CARD).read_text(encoding="utf-8")
  config = load_config(workdir / "config.json")
  record = read_json_object(workdir / "run.json", WAY_OUT)
  # A run that was not tested has none, and its card says so.
  summary = (
    release.summary
    if release
    else read_json_object(workdir / "evaluation" / "summary.json", WAY_OUT)
  )
  classes = ", ".join(class_names(config.data.labels))
  handed_on = release or exported
  steps = handed_on.steps if handed_on else _find_steps(workdir, config, summary)
  lines = [
    f"# Model card: {release.name if release else workdir.resolve().name}",
    "",
    f"Segments {classes} on CT, by attn_unet_jax {__version__}.",
    "",
    "## Limits",
    "",
    *(f"- {limit}" for limit in (*_LIMITS, *list_drawn(config))),
    "",
    "## Data and recipe",
    "",
    "| | |",
    "| --- | --- |",
    *(
      f"| {name} | {_escape(value)} |"
      for name, value in _list_facts(config, record, workdir, summary)
    ),
    f"| steps after the network | {_describe_steps(steps)} |",
    f"| licence of the data | {_find_licence(config.data.dataset)} |",
    *(
      [f"| licence of the {SECOND_SET} | {_find_licence(second_options(config.data).dataset)} |"]
      if config.data.also
      else []
    ),
    *_describe_licence(release),
    "",
    "## Scores",
    "",
    *_describe_scores(summary, exported, is_mean=bool(release and len(release.seeds) > 1)),
  ]
  return "\n".join(lines).rstrip() + "\n"


def _find_licence(dataset: str) -> str:
  # One set of a builder may have a licence of its own, as slabs in folders of the user's do.
  names = (dataset, dataset.partition("/")[0])
  return next((_LICENCES[name] for name in names if name in _LICENCES), _UNKNOWN_LICENCE)


def _describe_licence(release: ReleaseFacts | None) -> Iterator[str]:
  """Yields the rows about the values of the network."""
  if release and len(release.seeds) > 1:
    seeds = ", ".join(map(str, release.seeds))
    yield (
      f"| networks | {len(release.seeds)}, of the seeds {seeds}; their probabilities are averaged. "
      "What is above is of the first |"
    )
  if release:
    yield f"| trained on, in its makers' words | {_escape(release.trained_on)} |"
    yield f"| rounded to 16 bits | {_escape(release.rounding)} |"
  owner = _escape(release.licence) if release else "for its owner to say"
  yield f"| licence of the network's values | {owner}; the program's is Apache-2.0 |"


def name_set(name: str) -> str:
  """Returns the name of records, or of a folder without its place."""
  path = Path(name)
  # The folder may be gone since: the name of records has two parts at most.
  is_place = path.is_dir() or path.is_absolute() or len(path.parts) > 2 or ".." in path.parts
  return path.resolve().name if is_place else name


def _list_facts(
  config: RunConfig, record: Mapping[str, Any], workdir: Path, summary: Mapping[str, Any]
) -> list[tuple[str, str]]:
  facts = dict(list_facts(config, record, workdir, summary))
  # A card goes to others, whom the folders of this machine do not concern.
  facts["data"] = config.data.dataset or Path(config.data.folder).name
  if config.data.also:
    facts[SECOND_SET] = describe_second_set(name_set(config.data.also), config, workdir)
  if START in facts:
    facts[START] = describe_start(record, with_place=False)
  versions = record.get("versions")
  if isinstance(versions, dict) and "jax" in versions:
    facts["trained with"] = f"JAX {versions['jax']}, Python {record.get('python', 'unknown')}"
  return [*facts.items()]


def _find_steps(
  workdir: Path, config: RunConfig, summary: Mapping[str, Any]
) -> Postprocessing | None:
  """Returns the steps that `predict` takes; None of all folds, each of which has its own."""
  if config.data.fold == "all":
    return None
  record = read_record(workdir)
  if record is None:
    return UNCHANGED
  # Of a run that was not tested the record says which checkpoint was the best.
  step = summary.get("checkpoint_step", record.checkpoint_step)
  return read_steps(workdir, step, config.inference)


def _describe_steps(steps: Postprocessing | None) -> str:
  if steps is None:
    return "those that each fold chose"
  return "none" if steps == UNCHANGED else steps.describe()


def _describe_scores(
  summary: Mapping[str, Any], exported: ExportedAs | None, *, is_mean: bool
) -> Iterator[str]:
  """Yields the scores of the test cases; the names of cases, which may be patients', stay out."""
  classes = summary.get("classes", {})
  if not classes or summary.get("part", "test") != "test":
    yield "It has not been tested."
    return
  if exported and (
    problem := explain_other_scores(summary, exported.checkpoint_step, exported.steps)
  ):
    yield f"It has not been tested as it is here: it {problem}."
    return
  by = "by the mean of the networks" if is_mean else "by the best checkpoint"
  if summary.get("folds"):
    by = "each by the fold that did not see it"
  yield f"Of {summary.get('cases')} test cases, {by}, on the scans' own grids."
  yield "Intervals are of the mean: 95 %, by a bootstrap over cases."
  if "tta" in summary:
    yield f"Averaged over mirror images along {summary['tta']}."
  if "tta_scales" in summary:
    yield f"Averaged over copies scaled by {', '.join(map(str, summary['tta_scales']))}."
  if "no_postprocess" in summary:
    yield "Without the steps after the network."
  for name, metrics in classes.items():
    yield from ("", f"### {name}", "")
    counts = summary.get("counts", {}).get(name)
    if counts:
      yield f"Missed in {counts['missed']} of {counts['with_class']} cases that have it."
      yield ""
    yield "| score | mean | 95 % interval | median | cases |"
    yield "| --- | --- | --- | --- | --- |"
    for metric, found in metrics.items():
      yield f"| {metric} | {' | '.join(_format_score(found))} |"


def _format_score(found: Mapping[str, Any]) -> Sequence[str]:
  low, high = (_format_number(found.get(end)) for end in ("ci95_low", "ci95_high"))
  interval = f"{low} to {high}" if low and high else ""
  count = f"{found.get('n', 0)} of {found.get('n', 0) + found.get('undefined', 0)}"
  mean = _format_number(found.get("mean")) or "undefined"
  return mean, interval, _format_number(found.get("median")), count


def _format_number(value: Any) -> str:
  # An undefined score is null in JSON.
  is_number = isinstance(value, (int, float)) and math.isfinite(value)
  return f"{value:.3f}" if is_number else ""


def _escape(text: str) -> str:
  # A bar would end the cell, and a line break the row.
  return " ".join(text.replace("|", "\\|").split())
