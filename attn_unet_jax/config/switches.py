"""Keys of the fixed sections that are read only where another key, their switch, is on."""

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from attn_unet_jax.config.schema import RunConfig, flatten
from attn_unet_jax.runtime.errors import UserError


class Switch(NamedTuple):
  """A key that decides whether others are read.

  Attributes:
    key: its name.
    off: its value with which they are not read.
    prefix: with which their names begin.
    reader: what reads them, in words.
    flag: the flag that turns it on.
  """

  key: str
  off: Any
  prefix: str
  reader: str
  flag: str


_SWITCHES = (
  Switch(
    "painting.enabled",
    False,
    "painting.",
    "painting.enabled=True",
    "--config.painting.enabled=true",
  ),
  Switch("data.also", "", "data.also_", "a second data set", "--config.data.also=DATA"),
  Switch("stages.count", 1, "stages.", "stages.count=2", "--config.stages.count=2"),
)


def find_off_switch(key: str, values: Mapping[str, Any]) -> Switch | None:
  """Returns the switch of a key if it is off, so that nothing reads the key.

  Args:
    key: its name.
    values: the values of a config by key.
  """
  for switch in _SWITCHES:
    if key != switch.key and key.startswith(switch.prefix) and values[switch.key] == switch.off:
      return switch
  return None


def find_unread(values: Mapping[str, Any]) -> dict[str, Switch]:
  """Returns the keys that are not read but have another value than their default, by switch."""
  standard = flatten(RunConfig())
  found = {key: find_off_switch(key, values) for key in values}
  return {key: switch for key, switch in found.items() if switch and values[key] != standard[key]}


def check_switches(config: RunConfig, said: Collection[str] | None = None) -> None:
  """Checks that something reads every key that was said.

  Not for stored configs: a run of an earlier version may hold any value of what it never read.

  Args:
    config: a run's config.
    said: the keys to check; None: all.

  Raises:
    UserError: naming the key, its value, what reads it and the flag for that.
  """
  values = flatten(config)
  for key, switch in find_unread(values).items():
    if said is None or key in said:
      raise UserError(
        f"config.{key}={values[key]!r}: only {switch.reader} reads it; add {switch.flag}, or leave "
        "it out"
      )
