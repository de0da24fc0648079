"""The draft of a run, which experiments and flags change before it is built."""

import dataclasses
from typing import Any

from ml_collections import ConfigDict, FieldReference

from attn_unet_jax.config.schema import FIXED_SECTIONS, OPEN_SECTIONS
from attn_unet_jax.models.options import AttentionUNetOptions
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.options import AdamOptions


def default() -> ConfigDict:
  """Makes the draft of a run: every key of the fixed sections, locked, so that a typo fails."""
  draft = ConfigDict()
  for section, options in FIXED_SECTIONS.items():
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    if section:
      draft[section] = ConfigDict(values)
    else:
      draft.update(values)
  # A number or `all`: a plain value would take others of its own type alone.
  draft.data.fold = FieldReference(draft.data.fold, field_type=object)
  # The names alone: the other keys depend on them, and must not outlive another choice.
  draft.model = ConfigDict({"name": AttentionUNetOptions().name})
  draft.optimizer = ConfigDict({"name": AdamOptions().name})
  draft.loss_options = ConfigDict()
  # An unknown key in a locked section fails where the experiment file sets it, with its line.
  draft.lock()
  for section in OPEN_SECTIONS:  # a typo in these is found by `resolve_draft`
    draft[section].unlock()
  return draft


def check_complete(draft: ConfigDict) -> None:
  """Checks that a draft was made by `default()`.

  Raises:
    UserError: it lacks keys.
  """
  # A draft that an experiment builds by itself would lack keys that a later version adds.
  flat = flatten_draft(draft)
  if missing := [key for key in flatten_draft(default()) if key not in flat]:
    raise UserError(f"config: keys {missing[:5]} are missing; start from default()")


def flatten_draft(draft: ConfigDict, prefix: str = "") -> dict[str, Any]:
  """Returns `{'data.patch': (48, 48, 48), ...}` of a draft."""
  flat: dict[str, Any] = {}
  for key, value in draft.items():
    if isinstance(value, ConfigDict):
      flat |= flatten_draft(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = value
  return flat
