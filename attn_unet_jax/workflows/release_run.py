"""Makes a release of one run or several: a folder that another installation predicts with."""

import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attn_unet_jax import __version__
from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.schema import RunConfig, flatten
from attn_unet_jax.config.stored import to_json
from attn_unet_jax.inference.onnx_window import draw_windows
from attn_unet_jax.inference.sliding import SlidingWindow
from attn_unet_jax.runs.release import (
  NOTICE,
  RECORD,
  Release,
  digest_id,
  is_release,
  name_parameters,
  require_no_release,
  write_release,
)
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import check_writable, read_json_object, write_text
from attn_unet_jax.weights.released import round_variables, save_variables
from attn_unet_jax.workflows.load_run import BestCheckpoint, LoadedRun, load_best
from attn_unet_jax.workflows.model_card import CARD, ReleaseFacts, describe_model, name_set
from attn_unet_jax.workflows.open_ensemble import open_ensemble
from attn_unet_jax.workflows.other_dataset import list_seen_in_runs
from attn_unet_jax.workflows.quality_record import format_quality
from attn_unet_jax.workflows.scored_network import explain_other_scores
from attn_unet_jax.workflows.steps_record import format_record

LICENCE = "LICENCE.txt"
_SCORES = "evaluation/summary.json"
_STEPS, _QUALITY = "postprocess.json", "quality.json"
# Without `worst`, the names of cases, and without what is of other releases of the program.
_SCORE_KEYS = (
  *("part", "checkpoint_step", "cases", "empty_masks", "classes", "counts"),
  *("postprocessing", "tta", "tta_scales"),
)
# Where the data lies on this machine is nobody else's concern.
_PLACES = ("data.folder", "data.also", "data.folds", "data.also_folds", "data.boxes")
# What runs of one recipe may differ in, beside places: chance, cases, and what a start accepts.
_OWN = ("seed", "data.fold", "data.folds", "data.accept", "data.accept_changes")
_WINDOWS = 4


def release_run(
  workdirs: Sequence[Path],
  output: Path,
  licence: str,
  trained_on: str = "",
  scores: Path | None = None,
) -> list[Path]:
  """Writes the release of runs, and returns its files; an earlier release there is replaced.

  Args:
    workdirs: a run of one network, or several of one recipe, whose probabilities are averaged.
    output: the folder to write, whose name is the network's.
    licence: that of the network's values, which follows that of its data.
    trained_on: its data in words; '': the names of its data sets.
    scores: of several runs the folder where `evaluate` has scored their mean; a run has its own.

  Raises:
    UserError: there is no such run, it was not tested with its best checkpoint as `predict` uses
      it, several are not of one recipe, or the folder holds something else or cannot be written.
  """
  if not licence:
    raise UserError(
      "--format=release: name the licence of the network's values, which follows that of its data, "
      "such as --licence='CC BY-SA 4.0'"
    )
  for workdir in workdirs:
    require_no_release(workdir, "copy it, or release the run that it was made of")
  found = [load_best(workdir) for workdir in workdirs]
  _check_recipe(workdirs, found)
  # It checks whether runs fit together, and knows what all of them take.
  trained = open_ensemble(workdirs)
  # Before anything is measured or written: a release says how good it is.
  summary = _read_test(workdirs, trained, scores)
  # Before the network runs for the rounding, which may take long.
  _check_output(output)
  rounding = _measure_roundings(found)
  facts = ReleaseFacts(
    name=output.resolve().name,
    licence=licence,
    trained_on=trained_on or _name_data(trained.config),
    rounding=describe_rounding(rounding),
    summary=summary,
    seeds=tuple(one.config.seed for one in found),
    steps=trained.postprocessing,
  )
  # Of these the release has digests alone, since ids may be names of patients.
  seen = list_seen_in_runs(workdirs)
  release = Release(
    checkpoint_step=trained.step,
    classes=trained.classes,
    trained_on=facts.trained_on,
    licence=licence,
    test_cases=summary["cases"],
    test_dsc=dict(_list_dsc(summary)),
    rounding=rounding,
    seen=None if seen is None else tuple(sorted(map(digest_id, seen))),
    program=f"attn_unet_jax {__version__}",
    networks=len(found),
  )
  texts = {
    "config.json": to_json(_hide_places(trained.config)),
    _SCORES: json.dumps(summary, indent=2, allow_nan=False) + "\n",
    CARD: describe_model(workdirs[0], facts),
    LICENCE: _describe_licence(release),
    **_read_learnt(workdirs, trained),
  }
  try:
    return _write_files(output, found, release, texts)
  except OSError as error:
    raise UserError(f"{error.filename or output}: cannot be written ({error.strerror})") from None


def measure_rounding(found: BestCheckpoint, rounded: Mapping[str, Any]) -> dict[str, Any]:
  """Measures on drawn windows how other parameters change a network's answers.

  Returns:
    `largest_difference` of a probability, and how many of the `voxels` are of another class:
    `changed`.
  """
  system = SlidingWindow(found.config, found.module)
  largest, changed, voxels = 0.0, 0, 0
  for hu in draw_windows(found.config.window, _WINDOWS):
    # A drawn window stands for its whole scan, of which a z-score takes mean and sd.
    statistics = float(hu.mean()), float(hu.std())
    own, other = (
      np.asarray(system.window(values, hu, *statistics)) for values in (found.variables, rounded)
    )
    largest = max(largest, float(np.abs(own - other).max()))
    changed += int((own.argmax(-1) != other.argmax(-1)).sum())
    voxels += own[..., 0].size
  return {"largest_difference": largest, "changed": changed, "voxels": voxels}


def describe_rounding(rounding: Mapping[str, Any]) -> str:
  """Says in words what `measure_rounding` found."""
  return (
    f"probabilities differ by {rounding['largest_difference']:.2g} at most from those in float32 "
    f"on {_WINDOWS} drawn windows, and {rounding['changed']} of {rounding['voxels']} voxels change "
    "their class"
  )


def _measure_roundings(found: Sequence[BestCheckpoint]) -> dict[str, Any]:
  """Measures what rounding changes in each of several networks: the most, and all voxels."""
  each = [measure_rounding(one, round_variables(one.variables)) for one in found]
  total = {key: sum(one[key] for one in each) for key in ("changed", "voxels")}
  return {"largest_difference": max(one["largest_difference"] for one in each), **total}


def _check_recipe(workdirs: Sequence[Path], found: Sequence[BestCheckpoint]) -> None:
  """Refuses runs of several recipes: a release has one config.

  Raises:
    UserError: they differ in more than the seed, the cases and places on the disk.
  """
  ours = flatten(_hide_places(found[0].config))
  for workdir, other in zip(workdirs[1:], found[1:], strict=True):
    for key, value in flatten(_hide_places(other.config)).items():
      if key not in _OWN and value != ours.get(key):
        raise UserError(
          f"{workdir}: has {key}={value}, and {workdirs[0]} has {ours.get(key)}; a release of "
          "several runs is of one recipe, with other seeds, or folds of the same test cases"
        )


def _read_test(workdirs: Sequence[Path], trained: LoadedRun, scores: Path | None) -> dict[str, Any]:
  """Reads the scores of the test cases: of a run its own, of several those of their mean.

  Raises:
    UserError: they are not those of what is released.
  """
  several = len(workdirs) > 1
  if several != bool(scores):
    raise UserError(
      "--scores: of several runs, the folder where their mean was scored, by evaluate --workdir="
      f"{','.join(map(str, workdirs))} --output=FOLDER"
      if several
      else f"--scores={scores}: is for several runs; {workdirs[0]} has its own"
    )
  folder = scores or workdirs[0]
  if scores and not (scores / _SCORES).is_file():
    raise UserError(f"--scores={scores}: has no {_SCORES}; it is what evaluate wrote as --output")
  summary = read_json_object(folder / _SCORES, "remove it and evaluate again")
  problem = explain_other_scores(summary, trained.step, trained.postprocessing)
  # A run's own scores have no digest.
  wanted = trained.digest if several else None
  if not problem and summary.get("digest") != wanted:
    problem = "has the scores of other networks, or of these in another order"
  if problem:
    asked = f"--workdir={','.join(map(str, workdirs))}" + (f" --output={scores}" if scores else "")
    raise UserError(
      f"{folder}: {problem}, and a release says how well it does; evaluate again without --tta, "
      f"--tta_scales and --no_postprocess: python -m attn_unet_jax.evaluate {asked}"
    )
  return {key: summary[key] for key in _SCORE_KEYS if key in summary}


def _list_dsc(summary: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
  """Yields class and mean DSC of those that could be scored."""
  for name, scores in summary.get("classes", {}).items():
    mean = scores.get("dsc", {}).get("mean")
    if isinstance(mean, (int, float)) and math.isfinite(mean):
      yield name, float(mean)


def _check_output(output: Path) -> None:
  if output.is_file() or (output.is_dir() and any(output.iterdir()) and not is_release(output)):
    raise UserError(
      f"--output={output}: holds something else than a release; name a new folder, which is called "
      "as the network is to be"
    )
  check_writable(output)


def _name_data(config: RunConfig) -> str:
  sets = [config.data.dataset or config.data.folder, config.data.also]
  return " and ".join(name_set(one) for one in sets if one)


def _hide_places(config: RunConfig) -> RunConfig:
  """Returns the config without the folders of this machine."""
  standard = RunConfig()
  changes: dict[str, Any] = {
    "data.dir": standard.data.dir,
    "data.prepared": standard.data.prepared,
    # A run that starts from no other one has nothing to freeze: the two keys go together.
    "init.workdir": "",
    "init.freeze": "",
  }
  for key in _PLACES:
    value = getattr(config.data, key.partition(".")[2])
    changes[key] = name_set(value) if value else ""
  return replace_keys(config, changes)


def _read_learnt(workdirs: Sequence[Path], trained: LoadedRun) -> dict[str, str]:
  """Reads the files of what the runs learnt for these checkpoints on their validation cases.

  Several have the mean of their estimates of quality, and the steps that all of them chose.
  """
  first, *others = workdirs
  # All were read when the runs were opened: a damaged file would not have come this far.
  names = [name for name in (_STEPS, _QUALITY) if (first / name).is_file()]
  texts = {name: (first / name).read_text(encoding="utf-8") for name in names}
  if not others:
    return texts
  # No cases have shown a gain of their mean.
  steps = format_record(trained.postprocessing, trained.step)
  return {_STEPS: steps, _QUALITY: format_quality(trained.quality, trained.step)}


def _write_files(
  output: Path, found: Sequence[BestCheckpoint], release: Release, texts: Mapping[str, str]
) -> list[Path]:
  output.parent.mkdir(parents=True, exist_ok=True)
  parameters = name_parameters(len(found))
  # Beside it until all of it is there: what fails leaves an earlier release as it was.
  with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as name:
    made = Path(name)
    (made / _SCORES).parent.mkdir(parents=True)
    for file, one in zip(parameters, found, strict=True):
      save_variables(made / file, one.variables)
    for file, text in texts.items():
      write_text(made / file, text)
    write_release(made, release, [*parameters, *texts])
    _remove_release(output)
    (output / _SCORES).parent.mkdir(parents=True, exist_ok=True)
    # The record last: until then there is no release, rather than one of two networks.
    for file in (*parameters, *texts, RECORD):
      (made / file).replace(output / file)
  return [output / file for file in (*parameters, *texts, RECORD)]


def _remove_release(output: Path) -> None:
  """Removes the files of an earlier release, by its own list of them; its record first."""
  listed = read_json_object(output / RECORD, "remove the folder").get("files")
  (output / RECORD).unlink(missing_ok=True)
  for name in listed if isinstance(listed, dict) else ():
    # A name is a file of the folder, whatever a damaged record says.
    if (output / name).resolve().is_relative_to(output.resolve()):
      (output / name).unlink(missing_ok=True)


def _describe_licence(release: Release) -> str:
  return (
    f"The values in {', '.join(release.parameter_files)} are licensed under {release.licence}.\n"
    f"They were learnt from {release.trained_on}.\n"
    f"This is {NOTICE}: do not diagnose, plan, treat or measure a patient by its masks.\n"
    "The program that reads it is licensed under Apache-2.0.\n"
  )
