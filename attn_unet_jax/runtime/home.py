"""Expands `~` in paths, which a shell leaves as it is within `--name=~/data`."""

import os

from attn_unet_jax.runtime.errors import UserError


def expand_home(text: str) -> str:
  """Returns a path with `~` or `~USER` at its beginning expanded, as a shell would.

  A name that begins with `~` but is no user's stays: it may be a file's own.

  Raises:
    UserError: the path begins with `~`, and no home folder is known.
  """
  expanded = os.path.expanduser(text)
  # Otherwise a folder called ~ would be made, which people then remove by `rm -r ~`.
  if expanded == text and text.split(os.sep)[0] == "~":
    raise UserError(f"{text}: no home folder is known; write the whole path, or set HOME")
  return expanded


def expand_argument(argument: str) -> str:
  """Expands `~` in an argument of a command: `VALUE`, `--name=VALUE` or `--name=VALUE,VALUE`.

  Raises:
    UserError: see `expand_home`.
  """
  name, equals, value = argument.partition("=")
  if not (name.startswith("-") and equals):
    return expand_home(argument)
  return f"{name}=" + ",".join(map(expand_home, value.split(",")))
