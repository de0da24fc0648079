"""The flags `--config` and `--config.section.key`: an experiment file and what overrides it."""

import difflib
import re
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict

from attn_unet_jax.runtime import xla
from attn_unet_jax.runtime.errors import UserError


def checked_config(*, data: bool = True) -> ConfigDict:
  """The value of `--config`, with the overrides of the other flags, validated.

  Args:
    data: whether the command needs a data set to be named.

  Raises:
    UserError: the experiment file does not load, or a value is not allowed.
  """
  from attn_unet_jax.config import schema  # imports JAX, which not every command needs

  try:
    config = flags.FLAGS.config.copy_and_resolve_references()
  except OSError as error:
    raise UserError(f"--config: {str(error).splitlines()[-1].strip()}") from None
  if config.get("deterministic"):
    xla.make_deterministic()
  return schema.validate(config, data=data)


def explain_unknown_key(argv: Sequence[str]) -> str:
  """Which flag names no key of the config, and the key most like it; '' if all do."""
  from attn_unet_jax.config.schema import (
    default,
    flatten,  # as above
  )

  keys = flatten(default())
  given = [match[1] for flag in argv if (match := re.match(r"--?config\.([^=]+)", flag))]
  unknown = next((key for key in given if key not in keys), "")
  like = difflib.get_close_matches(unknown, keys, 1)
  hint = f"did you mean config.{like[0]}?" if like else "attn_unet_jax/config.py lists the keys"
  return unknown and f"unknown config key config.{unknown}; {hint}"
