"""The steps after the network that a run chose on its validation cases: `postprocess.json`."""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from attn_unet_jax.evaluation.choose_steps import ChosenSteps
from attn_unet_jax.inference.options import InferenceOptions
from attn_unet_jax.inference.postprocess import UNCHANGED, Postprocessing, parse_steps
from attn_unet_jax.runtime.errors import UserError, format_error
from attn_unet_jax.runtime.files import read_json_object, write_text

_FILE = "postprocess.json"
_FORMAT = 1


class StepsRecord(NamedTuple):
  """The steps, and the step of the checkpoint that they were chosen for."""

  steps: Postprocessing
  checkpoint_step: int


def write_record(workdir: Path, chosen: ChosenSteps, checkpoint_step: int) -> None:
  """Writes what was chosen for a checkpoint, with the gain that it had."""
  # JSON has no NaN.
  before, after = (None if math.isnan(dsc) else dsc for dsc in (chosen.before, chosen.after))
  validation = {
    "cases": chosen.cases,
    "dsc_without": before,
    "dsc_with": after,
    "gain": None if before is None or after is None else after - before,
  }
  write_text(workdir / _FILE, format_record(chosen.steps, checkpoint_step, validation))


def format_record(
  steps: Postprocessing, checkpoint_step: int, validation: Mapping[str, Any] | None = None
) -> str:
  """Returns the content of the file; `validation` is what the steps gained, if that is known."""
  content = {
    "format": _FORMAT,
    "checkpoint_step": checkpoint_step,
    "steps": dataclasses.asdict(steps),
    **({"validation": validation} if validation else {}),
  }
  return json.dumps(content, indent=2) + "\n"


def remove_record(workdir: Path) -> None:
  """Removes what was chosen for a network that is gone."""
  (workdir / _FILE).unlink(missing_ok=True)


def read_record(workdir: Path) -> StepsRecord | None:
  """Reads what a run chose; None if it has chosen nothing yet, as before this was recorded.

  Raises:
    UserError: the file is damaged.
  """
  path = workdir / _FILE
  way_out = "remove it to predict without, or to choose again by attn_unet_jax.main"
  content = read_json_object(path, way_out)
  if not content:
    return None
  try:
    if content["format"] != _FORMAT:
      raise ValueError(f"format {content['format']!r} of another version")
    return StepsRecord(parse_steps(content["steps"]), int(content["checkpoint_step"]))
  except (KeyError, TypeError, ValueError, OverflowError) as error:
    raise UserError(
      f"{path}: not the steps after a network ({format_error(error)}); {way_out}"
    ) from None


def read_steps(workdir: Path, checkpoint_step: int, options: InferenceOptions) -> Postprocessing:
  """Returns the steps that a run takes with a checkpoint.

  None are taken where its config wants none, or where they were chosen for another checkpoint.

  Raises:
    UserError: their file is damaged.
  """
  if options.postprocess == "none":
    return UNCHANGED
  record = read_record(workdir)
  return record.steps if record and record.checkpoint_step == checkpoint_step else UNCHANGED
