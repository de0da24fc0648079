"""Reads what a comparison needs of a run: its config, its scores by case, and its command."""

import csv
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attn_unet_jax.runs.builtin import PREFIX
from attn_unet_jax.runs.release import is_release
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import read_json_object

_AGAIN = "train or evaluate again"

# Given by the caller: `config` lies on a floor above, and is not imported from here.
ReadConfig = Callable[[Path], Mapping[str, Any]]


@dataclass(frozen=True)
class ScoredRun:
  """A run with its scores, or a folder that `evaluate --output` wrote, which has no config.

  Attributes:
    name: its path as given.
    config: values by key, `{'optimizer.learning_rate': 1e-4, ...}`.
    scores: by class, case and metric; NaN where a score is undefined.
    command: the flags of its last start.
    step: the step of the checkpoint that was scored.
    empty_masks: the rule for empty masks that the scores follow.
    tta: the axes of mirror images that were averaged, such as `xy`; '' for none.
    tta_scales: the scales of copies that were averaged, such as `0.9, 1.1`; '' for none.
    unprocessed: whether the steps after the network that it chose were left out.
  """

  name: str
  config: Mapping[str, Any]
  scores: Mapping[str, Mapping[str, Mapping[str, float]]]
  command: list[str] = field(default_factory=list)
  step: int | None = None
  empty_masks: str = "one"  # the rule before there was a choice
  tta: str = ""
  tta_scales: str = ""
  unprocessed: bool = False


def read_run(path: Path, read_config: ReadConfig, part: str = "test") -> ScoredRun:
  """Reads a run's evaluation of a part of its fold.

  Args:
    path: the run, or a folder that `evaluate --output` wrote.
    read_config: reads the values of a run's `config.json`, by key.
    part: the part of the fold: training, validation or test.

  Raises:
    UserError: the run is missing or not evaluated, or a file is not readable.
  """
  if str(path).startswith(PREFIX) or is_release(path):
    raise UserError(
      f"--workdirs: {path}: a release has no scores by case; evaluate --workdir={path} "
      "--output=FOLDER scores it on a data set, and the folder of that cases.csv can be compared"
    )
  if not path.is_dir():
    raise UserError(f"--workdirs: {path}: no such folder; name runs of attn_unet_jax.main")
  is_run = (path / "config.json").is_file()
  # The scores of the test part lie in evaluation/ itself, where `evaluate` writes them.
  folder = path / "evaluation" / ("" if part == "test" else part) if is_run else path
  scores = read_scores(folder / "cases.csv", f"--workdir={path} --part={part}")
  summary = read_json_object(folder / "summary.json", _AGAIN)
  return ScoredRun(
    str(path),
    read_config(path / "config.json") if is_run else {},
    scores,
    _read_command(path / "run.json") if is_run else [],
    summary.get("checkpoint_step"),
    str(summary.get("empty_masks", "one")),
    str(summary.get("tta", "")),
    ", ".join(map(str, summary.get("tta_scales", ()))),
    bool(summary.get("no_postprocess")),
  )


def _read_command(path: Path) -> list[str]:
  command = read_json_object(path, _AGAIN).get("command", [])
  if not isinstance(command, list) or not all(isinstance(flag, str) for flag in command):
    # A document of the comparison prints it, so that it must be a list of words.
    raise UserError(f"{path}: command is {command!r}, not a list of flags; {_AGAIN}")
  return command


def read_scores(path: Path, flags: str) -> dict[str, dict[str, dict[str, float]]]:
  """Reads a table of scores, `cases.csv`.

  Args:
    path: the file.
    flags: those of the `evaluate` that writes it, for messages.

  Returns:
    the scores by class, case and metric.

  Raises:
    UserError: the file is missing or no such table.
  """
  found: dict[str, dict[str, dict[str, float]]] = {}
  try:
    with path.open(newline="", encoding="utf-8") as file:
      for row in csv.DictReader(file):
        case, name = row.pop("case"), row.pop("class")
        row.pop("fold", None)  # which network scored it is no score
        found.setdefault(name, {})[case] = {key: _parse_score(value) for key, value in row.items()}
  except (FileNotFoundError, NotADirectoryError):
    raise UserError(
      f"{path}: no scores found; run python -m attn_unet_jax.evaluate {flags} first"
    ) from None
  except (KeyError, TypeError, ValueError, csv.Error) as error:
    raise UserError(f"{path}: not a table of scores ({error}); evaluate the run again") from None
  if not found:
    raise UserError(f"{path}: contains no case; run python -m attn_unet_jax.evaluate {flags} again")
  return found


def _parse_score(text: str) -> float:
  """Parses a score, NaN if it is undefined."""
  value = float(text)
  # No score of this program is infinite: such a file is damaged or foreign.
  if math.isinf(value):
    raise ValueError(f"a score of {value}")
  return value
