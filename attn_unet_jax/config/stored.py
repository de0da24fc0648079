"""A run's `config.json`: written, read back, compared."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from attn_unet_jax.config.schema import default, flatten, validate
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.files import read_json


def to_json(config: ConfigDict) -> str:
  """The resolved config, as it stands in a run's `config.json`."""
  return json.dumps(config.to_dict(), indent=2) + "\n"


def load(path: Path) -> ConfigDict:
  """Reads a run's `config.json`; lists become tuples again, and a missing key has its default.

  Raises:
    UserError: the file is missing, unreadable, has keys that this version does not know, or values
      that are not allowed.
  """
  try:
    stored = read_json(path)
    config = default()
    with config.unlocked():
      config.update(_tuples(stored))
  except FileNotFoundError:
    raise UserError(f"{path}: not found; is its folder a run made by attn_unet_jax.main?") from None
  except OSError as error:
    raise UserError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
  except (ValueError, TypeError, AttributeError, OverflowError) as error:
    raise UserError(f"{path}: not a config of this program ({error}); train again") from None
  unknown = flatten(config).keys() - flatten(default()).keys()
  if unknown:
    raise UserError(f"{path}: unknown keys {sorted(unknown)}; written by another version")
  try:
    return validate(config, data=False)
  except UserError as error:
    raise UserError(f"{path}: {error}; put back what the run was trained with") from None


def _tuples(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _tuples(item) for key, item in value.items()}
  return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


def difference(stored: ConfigDict, asked: ConfigDict) -> dict[str, tuple[Any, Any]]:
  """Keys whose values differ, with both values."""
  a, b = flatten(stored), flatten(asked)
  return {key: (a[key], b[key]) for key in a if a[key] != b[key]}
