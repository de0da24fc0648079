"""A run's `config.json`: written, read back, compared."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attn_unet_jax.config.build import build
from attn_unet_jax.config.rules import check_rules
from attn_unet_jax.config.schema import RunConfig, flatten, list_keys, read_keys
from attn_unet_jax.config.switches import find_off_switch
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import read_json

_FORMAT = 2
# By key, what a run of version 0.1.0 did where nothing was said, and where it is another thing now.
EARLIER_DEFAULTS: dict[str, Any] = {
  "data.label_resampling": "nearest",
  "inference.postprocess": "none",
}


def to_json(config: RunConfig) -> str:
  """Returns the text of a run's `config.json`: every key that the run reads, by section."""
  nested: dict[str, Any] = {"format": _FORMAT}
  for key, value in flatten(config).items():
    section, _, name = key.rpartition(".")
    (nested.setdefault(section, {}) if section else nested)[name] = value
  return json.dumps(nested, indent=2) + "\n"


def load_config(path: Path) -> RunConfig:
  """Reads a run's `config.json`, of today's format or an older one.

  Raises:
    UserError: the file is missing, unreadable, has keys that this version does not know, or values
      that are not allowed.
  """
  try:
    values = _migrate_values(_flatten_file(read_json(path)))
  except FileNotFoundError:
    raise UserError(f"{path}: not found; is its folder a run made by attn_unet_jax.main?") from None
  except OSError as error:
    raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
  # A damaged or foreign file may be any JSON: a list, a number, a text.
  except (ValueError, TypeError, AttributeError, OverflowError) as error:
    raise UserError(f"{path}: not a config of this program ({error}); train again") from None
  except UserError as error:
    raise _explain_refusal(path, error) from None
  known = {key.name for key in list_keys()}
  external = ":" in str(values.get("model.name"))  # whose keys only its module knows
  unknown = [k for k in values if k not in known and not (external and k.startswith("model."))]
  if unknown:
    raise UserError(f"{path}: unknown keys {sorted(unknown)}; written by another version")
  try:
    config = build(values)
    check_rules(config)
  except UserError as error:
    raise _explain_refusal(path, error) from None
  return config


def _explain_refusal(path: Path, error: UserError) -> UserError:
  return UserError(f"{path}: {error}; put back what the run was trained with")


def _migrate_values(values: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the values of a file of any format as today's.

  Format 1, which says no number, has the keys of all networks, optimisers and losses in every file:
  those that the run did not read are left out. What a file does not have has its default, or the
  one of its time.
  """
  # The first format said no number.
  number = values.get("format", 1)
  if number not in (1, _FORMAT):
    raise ValueError(f"format {number!r} of another version")
  values = EARLIER_DEFAULTS | {key: value for key, value in values.items() if key != "format"}
  if number == _FORMAT:
    return values
  known = {key.name for key in list_keys()}
  # A key that nobody knows stays, and is refused by name: it may be of a later version.
  read = read_keys(values)
  return {key: value for key, value in values.items() if key in read or key not in known}


def _flatten_file(nested: Any, prefix: str = "") -> dict[str, Any]:
  """Returns the values of a file by key; lists become tuples again."""
  flat: dict[str, Any] = {}
  for key, value in nested.items():
    if isinstance(value, dict):
      flat |= _flatten_file(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = _to_tuples(value)
  return flat


# JSON has lists alone, and the types of the options are tuples.
def _to_tuples(value: Any) -> Any:
  return tuple(map(_to_tuples, value)) if isinstance(value, list) else value


def find_differences(stored: RunConfig, asked: RunConfig) -> dict[str, tuple[Any, Any]]:
  """Returns the keys whose values differ, with both; None where a run does not read the key.

  What neither reads, as its switch is off, makes no difference: an earlier version took any value.
  """
  a, b = flatten(stored), flatten(asked)
  differing = {key: (a.get(key), b.get(key)) for key in a | b if a.get(key) != b.get(key)}
  return {
    key: values
    for key, values in differing.items()
    if not (find_off_switch(key, a) and find_off_switch(key, b))
  }
