"""Flags `--config.section.key=value`: taken from the command line, read, put into a draft."""

import ast
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from attn_unet_jax.config.build import replace_keys
from attn_unet_jax.config.draft import check_complete, default, flatten_draft
from attn_unet_jax.config.schema import (
  Key,
  RunConfig,
  list_keys,
  network_options,
  read_keys,
  suggest_key,
)
from attn_unet_jax.config.switches import find_unread
from attn_unet_jax.models.options import COMPUTING
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.options import describe_type, field_types, has_type

# `--noNAME` sets a flag to false, as with the flags of absl.
_FLAG = re.compile(r"--?(no)?config\.([^=]+)(?:=(.*))?", re.DOTALL)
_TRUE, _FALSE = ("true", "1", "yes"), ("false", "0", "no")


def take_overrides(arguments: Sequence[str]) -> tuple[list[str], dict[str, str]]:
  """Divides the arguments of a command into those of other flags and the texts of keys.

  `--config.key=text`, `--config.key text`, `--config.key` and `--noconfig.key` (true and false).

  Raises:
    UserError: an unknown key; names the one most like it.
  """
  rest: list[str] = []
  texts: dict[str, str] = {}
  kinds = {key.name: key.kind for key in list_keys()}
  remaining = list(arguments)
  # Not absl's parser: a key is known only once the experiment is loaded, which another flag names.
  while remaining:
    argument = remaining.pop(0)
    match = _FLAG.fullmatch(argument)
    if not match:
      rest.append(argument)
      continue
    negated, key, text = match.groups()
    if text is None and kinds.get(key) is bool:
      text = "false" if negated else "true"
    # A value may begin with one dash, as a negative number does.
    elif text is None and remaining and not remaining[0].startswith("--"):
      text = remaining.pop(0)
    if text is None or (negated and kinds.get(key) is not bool):
      raise UserError(f"{argument}: write --config.{key}=VALUE")
    texts[key] = text
  return rest, texts


def apply_overrides(draft: ConfigDict, texts: Mapping[str, str]) -> list[str]:
  """Puts values from the command line into a draft.

  Where they choose a network of another family, what the experiment said about its own is dropped,
  but for how it is computed: the new network has its own published width. Where they choose another
  optimiser, schedule or loss, what that does not read is dropped. So is what it said of painting,
  of a second data set or of stages, where they turn that off.

  Args:
    draft: changed in place.
    texts: by key, as `take_overrides` returns them.

  Returns:
    lines for the screen that say what was dropped.

  Raises:
    UserError: an unknown key, a text that is no value of its type, or a draft that lacks keys.
  """
  check_complete(draft)
  name = texts.get("model.name", draft.model.name)
  given = _read_texts(texts, name)
  dropped = []
  # A width or an option said of one network means another thing in another.
  if not _are_related(name, draft.model.name):
    dropped += [f"model.{key}" for key in draft.model if key not in ("name", *COMPUTING)]
  read = read_keys(flatten_draft(draft) | given)
  chosen = any(key.endswith((".name", ".schedule")) or key.startswith("loss.") for key in given)
  if chosen:
    said = flatten_draft(draft)
    choices = ("model.", "optimizer.", "loss_options.")
    dropped += [key for key in said if key.startswith(choices) and key not in read]
  dropped = [key for key in dict.fromkeys(dropped) if key not in given]
  values = {key: flatten_draft(draft)[key] for key in dropped}
  # Dropped before anything is set: what the command line says is never dropped.
  for key in dropped:
    section, _, last = key.rpartition(".")
    del draft[section][last]
  for key, value in given.items():
    section, _, last = key.rpartition(".")
    (draft[section] if section else draft)[last] = value
  values |= _reset_unread(draft, given)
  if not values:
    return []
  named = ", ".join(f"{key}={value!r}" for key, value in values.items())
  return [f"the experiment's {named} no longer counts: it was said of another choice"]


def _reset_unread(draft: ConfigDict, given: Mapping[str, Any]) -> dict[str, Any]:
  """Resets what the experiment said for a switch that the command line turns off; returns it."""
  said, standard = flatten_draft(draft), flatten_draft(default())
  dropped = {
    key: said[key]
    for key, switch in find_unread(said).items()
    if switch.key in given and key not in given
  }
  for key in dropped:
    section, _, last = key.rpartition(".")
    draft[section][last] = standard[key]
  return dropped


def change_config(config: RunConfig, texts: Mapping[str, str]) -> RunConfig:
  """Returns a run's config with values from the command line.

  Raises:
    UserError: an unknown key, a text that is no value of its type, or one that is not allowed.
  """
  return replace_keys(config, _read_texts(texts, texts.get("model.name", config.model.name)))


def _read_texts(texts: Mapping[str, str], network: str) -> dict[str, Any]:
  """Reads the values of keys, for a network of this name."""
  kinds = {key.name: key for key in list_keys()}
  return {key: _read_text(key, text, kinds.get(key), network) for key, text in texts.items()}


def _are_related(network: str, other: str) -> bool:
  """Returns whether one network has the options of the other, like U-Net and Attention U-Net."""
  # Networks that share options share them by a base class.
  a, b = network_options(network), network_options(other)
  return issubclass(a, b) or issubclass(b, a)


def _read_text(key: str, text: str, known: Key | None, network: str) -> Any:
  """Reads the text of a key's value."""
  if known is not None:
    return read_value(key, text, known.kind, known.default)
  if key.startswith("model.") and ":" in network:  # a key that only the user's module knows
    kinds = field_types(network_options(network))
    return read_value(key, text, kinds.get(key.removeprefix("model."), Any), None)
  raise UserError(f"unknown config key config.{key}; {suggest_key(key)}")


def read_value(key: str, text: str, kind: Any, default: Any) -> Any:
  """Reads a value as a flag gives it: `0.5`, `true`, `48,48,48` or `(48, 48, 48)`.

  Args:
    key: for the message.
    text: what was written.
    kind: the key's type.
    default: the key's default, for the message.

  Raises:
    UserError: the text is no value of this type.
  """
  # Before any literal is looked for: a folder that is called 1 stays text.
  if kind is str or isinstance(default, str):
    return text
  if kind is bool:
    if text.lower() in (*_TRUE, *_FALSE):
      return text.lower() in _TRUE
    raise UserError(f"config.{key}={text!r}: must be true or false")
  value = _evaluate_literal(text)
  if kind == tuple[str, ...] and isinstance(value, str):  # `tensorboard,mlflow`
    value = tuple(filter(None, map(str.strip, text.split(","))))
  # `--config.loss_options.class_weights=1` is a tuple of one, as `48,48,48` is one of three.
  if typing.get_origin(kind) is tuple:
    value = value if isinstance(value, tuple) else (value,)
  # A float key keeps a float, so that 2 and 2.0 are the same config when a run is resumed.
  if kind is float or types.NoneType in typing.get_args(kind):
    value = float(value) if isinstance(value, int) and not isinstance(value, bool) else value
  if not has_type(value, kind):
    raise UserError(f"config.{key}={text!r}: must be {describe_type(kind, default)}")
  return value


def _evaluate_literal(text: str) -> Any:
  """Reads a Python literal; what is none stays text. Lists become tuples."""
  try:
    # `eval` would run whatever code a flag holds; this reads values alone.
    return _to_tuple(ast.literal_eval(text.strip()))
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    try:
      return float(text)  # inf and nan, which a rule refuses by name
    except ValueError:
      return text


def _to_tuple(value: Any) -> Any:
  return tuple(map(_to_tuple, value)) if isinstance(value, (list, tuple)) else value
