"""Makes a release of a run: the folder that another installation predicts with, or ships."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attn_unet_jax import __version__
from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.config.stored import load_config, to_json
from attn_unet_jax.inference.onnx_window import draw_windows
from attn_unet_jax.inference.sliding import SlidingWindow
from attn_unet_jax.runs.release import (
  NOTICE,
  PARAMETERS,
  RECORD,
  Release,
  digest_id,
  is_release,
  require_no_release,
  write_release,
)
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import check_writable, read_json_object, write_text
from attn_unet_jax.weights.released import round_variables, save_variables
from attn_unet_jax.workflows.load_run import BestCheckpoint, load_best
from attn_unet_jax.workflows.model_card import CARD, ReleaseFacts, describe_model, name_set
from attn_unet_jax.workflows.other_dataset import list_seen_cases
from attn_unet_jax.workflows.quality_record import read_quality
from attn_unet_jax.workflows.scored_network import explain_other_scores
from attn_unet_jax.workflows.steps_record import read_record, read_steps

LICENCE = "LICENCE.txt"
_SCORES = "evaluation/summary.json"
_LEARNT = ("postprocess.json", "quality.json")
# Without `worst`, the names of cases, and without what is of other releases of the program.
_SCORE_KEYS = (
  *("part", "checkpoint_step", "cases", "empty_masks", "classes", "counts"),
  *("postprocessing", "tta", "tta_scales"),
)
# Where the data lies on this machine is nobody else's concern.
_PLACES = ("data.folder", "data.also", "data.folds", "data.also_folds", "data.boxes")
_WINDOWS = 4


def release_run(workdir: Path, output: Path, licence: str, trained_on: str = "") -> list[Path]:
  """Writes the release of a run, and returns its files; an earlier release there is replaced.

  Args:
    workdir: the run, of one network and tested.
    output: the folder to write, whose name is the network's.
    licence: that of the network's values, which follows that of its data.
    trained_on: its data in words; '': the names of its data sets.

  Raises:
    UserError: there is no such run, it was not tested with its best checkpoint as `predict` uses
      it, or the folder holds something else or cannot be written.
  """
  if not licence:
    raise UserError(
      "--format=release: name the licence of the network's values, which follows that of its data, "
      "such as --licence='CC BY-SA 4.0'"
    )
  require_no_release(workdir, "copy it, or release the run that it was made of")
  found = load_best(workdir)
  # Before anything is measured or written: a release says how good it is.
  summary = _read_test(workdir, found)
  # Before the network runs for the rounding, which may take long.
  _check_output(output)
  rounded = round_variables(found.variables)
  rounding = measure_rounding(found, rounded)
  facts = ReleaseFacts(
    name=output.resolve().name,
    licence=licence,
    trained_on=trained_on or _name_data(found.config),
    rounding=describe_rounding(rounding),
  )
  # Of these the release has digests alone, since ids may be names of patients.
  seen = list_seen_cases(load_config(workdir / "config.json"), workdir / "folds.json")
  release = Release(
    checkpoint_step=found.step,
    classes=found.classes,
    trained_on=facts.trained_on,
    licence=licence,
    test_cases=summary["cases"],
    test_dsc=dict(_list_dsc(summary)),
    rounding=rounding,
    seen=None if seen is None else tuple(sorted(map(digest_id, seen))),
    program=f"attn_unet_jax {__version__}",
  )
  texts = {
    "config.json": to_json(_hide_places(found.config)),
    _SCORES: json.dumps(summary, indent=2, allow_nan=False) + "\n",
    CARD: describe_model(workdir, facts),
    LICENCE: _describe_licence(release),
    **_read_learnt(workdir, found),
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


def _read_test(workdir: Path, found: BestCheckpoint) -> dict[str, Any]:
  """Reads the scores of the run's test cases.

  Raises:
    UserError: they are not those of what is released.
  """
  summary = read_json_object(workdir / _SCORES, "remove it and evaluate again")
  steps = read_steps(workdir, found.step, found.config.inference)
  if problem := explain_other_scores(summary, found.step, steps):
    raise UserError(
      f"{workdir}: {problem}, and a release says how well it does; evaluate again without --tta, "
      "--tta_scales and --no_postprocess: python -m attn_unet_jax.evaluate "
      f"--workdir={workdir}"
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


def _read_learnt(workdir: Path, found: BestCheckpoint) -> dict[str, str]:
  """Reads the files of what the run learnt for this checkpoint on its validation cases.

  Raises:
    UserError: one is damaged.
  """
  # Read only to be checked: a damaged file would be shipped under a digest that fits it.
  read_record(workdir)
  read_quality(workdir, found.classes, found.step)
  names = (name for name in _LEARNT if (workdir / name).is_file())
  return {name: (workdir / name).read_text(encoding="utf-8") for name in names}


def _write_files(
  output: Path, found: BestCheckpoint, release: Release, texts: Mapping[str, str]
) -> list[Path]:
  (output / _SCORES).parent.mkdir(parents=True, exist_ok=True)
  # Until the new one is written there is no release, rather than one of two networks.
  for name in (RECORD, *_LEARNT):
    (output / name).unlink(missing_ok=True)
  save_variables(output / PARAMETERS, found.variables)
  for name, text in texts.items():
    write_text(output / name, text)
  # Last, since it has the digests of all other files.
  write_release(output, release, [PARAMETERS, *texts])
  return [output / name for name in (PARAMETERS, *texts, RECORD)]


def _describe_licence(release: Release) -> str:
  return (
    f"The values of the network in {PARAMETERS} are licensed under {release.licence}.\n"
    f"It learnt from {release.trained_on}.\n"
    f"It is {NOTICE}: do not diagnose, plan, treat or measure a patient by its masks.\n"
    "The program that reads it is licensed under Apache-2.0.\n"
  )
