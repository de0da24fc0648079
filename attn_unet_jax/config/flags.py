"""The flags `--config` and `--config.section.key` of a command."""

from collections.abc import Sequence

from absl import flags

from attn_unet_jax.config.experiment import load_experiment
from attn_unet_jax.config.overrides import apply_overrides, take_overrides
from attn_unet_jax.config.resolve import resolve_draft
from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.runtime import xla
from attn_unet_jax.runtime.console import say

_texts: dict[str, str] = {}  # of the keys on the command line of this process


def define_config(default: str | None = None) -> None:
  """Defines the flag `--config`; without a default it is required."""
  flags.DEFINE_string(
    "config",
    default,
    "Experiment: a file such as experiments/pancreas.py, or a name such as pancreas; a variant "
    "after a colon: pancreas:phantom.",
    required=default is None,
  )


def take_config_flags(arguments: Sequence[str]) -> list[str]:
  """Takes `--config.section.key=value` out of a command's arguments; returns the others.

  Raises:
    UserError: a flag without a value.
  """
  rest, texts = take_overrides(arguments)
  _texts.clear()
  _texts.update(texts)
  return rest


def given_keys() -> dict[str, str]:
  """Returns the texts of the keys on the command line, by key."""
  return dict(_texts)


def read_config(*, data: bool = True) -> RunConfig:
  """Makes the config of `--config` and the flags that override its keys.

  Args:
    data: whether the command needs a data set to be named.

  Raises:
    UserError: the experiment file does not load, or a value is not allowed.
  """
  draft = load_experiment(flags.FLAGS.config)
  for line in apply_overrides(draft, _texts):
    say(line)
  config = resolve_draft(draft, data=data)
  if config.deterministic:
    xla.make_deterministic()
  return config
