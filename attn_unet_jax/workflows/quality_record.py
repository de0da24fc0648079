"""How the quality of a run's masks is estimated: `quality.json`."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attn_unet_jax.inference.quality import FEATURES, QualityModel
from attn_unet_jax.runtime.errors import UserError, format_error
from attn_unet_jax.runtime.files import read_json_object, write_text

_FILE = "quality.json"
_FORMAT = 1


def write_quality(workdir: Path, models: Mapping[str, QualityModel], checkpoint_step: int) -> None:
  """Writes what was learnt for a checkpoint, by class."""
  write_text(workdir / _FILE, format_quality(models, checkpoint_step))


def format_quality(models: Mapping[str, QualityModel], checkpoint_step: int) -> str:
  """Returns the content of the file."""
  content = {
    "format": _FORMAT,
    "checkpoint_step": checkpoint_step,
    "classes": {
      # By name: the order of the features is this version's own.
      name: dataclasses.asdict(model) | {"weights": dict(zip(FEATURES, model.weights, strict=True))}
      for name, model in models.items()
    },
  }
  return json.dumps(content, indent=2, allow_nan=False) + "\n"


def remove_quality(workdir: Path) -> None:
  """Removes what was learnt for a network that is gone."""
  (workdir / _FILE).unlink(missing_ok=True)


def read_quality(
  workdir: Path, classes: Sequence[str], checkpoint_step: int
) -> dict[str, QualityModel]:
  """Reads what was learnt for a checkpoint; where nothing was, the expected DSC is as it is.

  Raises:
    UserError: the file is damaged.
  """
  path = workdir / _FILE
  way_out = "remove it to predict without what was learnt"
  content = read_json_object(path, way_out)
  try:
    # What was learnt of another checkpoint's probabilities does not hold for these.
    if not content or content["checkpoint_step"] != checkpoint_step:
      return {name: QualityModel() for name in classes}
    if content["format"] != _FORMAT:
      raise ValueError(f"format {content['format']!r} of another version")
    return {name: _parse_model(content["classes"][name]) for name in classes}
  except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
    raise UserError(
      f"{path}: not what a run learnt of its quality ({format_error(error)}); {way_out}"
    ) from None


def _parse_model(said: Mapping[str, Any]) -> QualityModel:
  threshold = said["threshold"]
  return QualityModel(
    tuple(_parse_number(said["weights"][name]) for name in FEATURES),
    _parse_number(said["intercept"]),
    None if threshold is None else _parse_number(threshold),
    int(said["cases"]),
  )


def _parse_number(value: Any) -> float:
  # JSON as Python reads it has NaN and Infinity, with which every estimate would be undefined.
  number = float(value)
  if not math.isfinite(number):
    raise ValueError(f"{value!r} is no number")
  return number
