"""Builds the config of a run from values by key; refuses what nothing reads."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from attn_unet_jax.config.schema import (
  FIXED_SECTIONS,
  OPEN_SECTIONS,
  RunConfig,
  find_unmet_condition,
  flag_name,
  flatten,
  join_key,
  list_keys,
  network_options,
  optimizer_options,
  read_keys,
  suggest_key,
)
from attn_unet_jax.losses.options import LOSSES, LossOptions, LossTerm, NoOptions
from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.runtime.options import OptionError, Options


def build(values: Mapping[str, Any]) -> RunConfig:
  """Makes a config of values by key; a key that is not given has its default.

  Raises:
    UserError: an unknown key, a value that is not allowed, or a key that nothing reads.
  """
  said: dict[str, dict[str, Any]] = {section: {} for section in (*FIXED_SECTIONS, *OPEN_SECTIONS)}
  # The last dot divides: a section has no dot in it, and the key of a general option has none.
  for key, value in values.items():
    section, _, name = key.rpartition(".")
    if section not in said:
      raise UserError(f"unknown config key config.{key}; {suggest_key(key)}")
    said[section][name] = value
  fixed = {
    section: _make_options(section, options, said[section])
    for section, options in FIXED_SECTIONS.items()
  }
  # `loss` is no section of the run's config: its weights and options become the terms of a sum.
  general: Any = fixed[""]
  sections: Any = {name: options for name, options in fixed.items() if name not in ("", "loss")}
  return RunConfig(
    seed=general.seed,
    deterministic=general.deterministic,
    model=_choose_options("model", network_options(said["model"].get("name")), said["model"]),
    optimizer=_choose_options(
      "optimizer", optimizer_options(said["optimizer"].get("name")), said["optimizer"]
    ),
    loss=_make_loss(fixed["loss"], said["loss_options"]),
    **sections,
  )


def replace_keys(config: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
  """Returns a config with some keys changed; what a new choice does not read is left out.

  Args:
    config: a run's config.
    changes: values by key.

  Raises:
    UserError: an unknown key, a value that is not allowed, or a changed key that nothing reads.
  """
  values = flatten(config) | dict(changes)
  read = read_keys(values)
  # What was asked for stays in, even if nothing reads it: `build` then refuses it by name.
  return build({key: value for key, value in values.items() if key in read or key in changes})


def _make_options(section: str, defaults: Options, said: Mapping[str, Any]) -> Options:
  """Makes the options of a section with some values said."""
  known = {field.name for field in dataclasses.fields(defaults)}
  for name in said:
    if name not in known:
      key = join_key(section, name)
      raise UserError(f"unknown config key config.{key}; {suggest_key(key)}")
  try:
    return dataclasses.replace(defaults, **said)
  except OptionError as error:
    raise _make_refusal(section, error) from None


def _choose_options(section: str, options: type[Any], said: Mapping[str, Any]) -> Any:
  """Makes the options of a network or optimiser; refuses a key that it does not read."""
  chosen = options()
  fields = {field.name: field for field in dataclasses.fields(options)}
  for name in said:
    if name not in fields:
      raise UserError(_explain_unread_key(section, name, chosen.name))
  # Only when all values are known is it known which conditions hold.
  made = _make_options(section, chosen, said)
  for name in said:
    if unmet := find_unmet_condition(made, fields[name]):
      raise UserError(
        f"config.{section}.{name}: only {unmet[0]}={unmet[1]} reads it, and "
        f"config.{section}.{unmet[0]} is {getattr(made, unmet[0])!r}"
      )
  return made


def _make_loss(weights: Any, said: Mapping[str, Any]) -> LossOptions:
  """Makes the loss of its weights and options; refuses an option that no term reads."""
  # In the order of names: a sum's last bits depend on it.
  named = {name: getattr(weights, name) for name in sorted(LOSSES)} | dict(weights.external)
  # A term of weight 0 is no term: it would cost its computation, and a NaN in it would spread.
  chosen = {name: weight for name, weight in named.items() if weight}
  terms: list[LossTerm] = []
  read: set[str] = set()
  for name, weight in chosen.items():
    options = LOSSES[name].options if name in LOSSES else NoOptions
    names = {flag_name(field): field.name for field in dataclasses.fields(options)}
    own = {names[key]: value for key, value in said.items() if key in names}
    # Several terms may read one option. It is refused only where no term does.
    read |= names.keys()
    try:
      terms.append(LossTerm(name, weight, options(**own)))
    except OptionError as error:
      raise _make_refusal(
        "loss_options", error, {field: key for key, field in names.items()}
      ) from None
  for key in said:
    if key not in read:
      raise UserError(_explain_unread_key("loss_options", key, " + ".join(chosen) or "no loss"))
  return LossOptions(tuple(terms))


def _make_refusal(
  section: str, error: OptionError, flag_names: Mapping[str, str] | None = None
) -> UserError:
  key = join_key(section, (flag_names or {}).get(error.key, error.key))
  return UserError(f"config.{key}={error.value!r}: must be {error.rule}")


def _explain_unread_key(section: str, name: str, chosen: str) -> str:
  """Says that what was chosen does not read a key, and who does."""
  key = join_key(section, name)
  # No reader at all: the key is not one of another choice, but a mistake.
  readers = [known.reader for known in list_keys() if known.name == key]
  if not readers:
    return f"unknown config key config.{key}; {suggest_key(key)}"
  return (
    f"config.{key}: {chosen} does not read it; it is a key of {', '.join(dict.fromkeys(readers))}"
  )
