"""What a run's folder tells trackers such as MLflow and W&B: their ids of it, and its config."""

import json
from pathlib import Path
from typing import Any

from attn_unet_jax.runtime.files import read_json_object, write_text

TRACKERS = "trackers.json"
_WAY_OUT = "remove it: a new run is begun in MLflow and W&B"


def read_tracker_id(workdir: Path, name: str) -> str:
  """Returns the id that a tracker has given a run; '' where it does not know the run.

  Raises:
    UserError: the file is damaged.
  """
  found = read_json_object(workdir / TRACKERS, _WAY_OUT).get(name)
  return found if isinstance(found, str) else ""


def keep_tracker_id(workdir: Path, name: str, value: str) -> None:
  """Writes the id of a run into its folder, by which a later start goes on with it."""
  ids = read_json_object(workdir / TRACKERS, _WAY_OUT) | {name: value}
  write_text(workdir / TRACKERS, json.dumps(ids, indent=2) + "\n")


def forget_tracker_ids(workdir: Path) -> None:
  """Removes the ids of an earlier run of this folder."""
  (workdir / TRACKERS).unlink(missing_ok=True)


def read_settings(workdir: Path) -> dict[str, Any]:
  """Returns the values in a run's `config.json` by `section.key`; none without a file."""
  content = read_json_object(workdir / "config.json", "bring it back")
  settings: dict[str, Any] = {}
  for section, values in content.items():
    if isinstance(values, dict):
      settings |= {f"{section}.{key}": value for key, value in values.items()}
    else:
      settings[section] = values
  return settings
