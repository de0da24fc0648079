"""Imports the packages of optional extras when they are first needed."""

import importlib
from typing import Any

from attn_unet_jax.runtime.errors import UserError, format_error


def import_extra(module: str, extra: str, needed_by: str) -> Any:
  """Imports a module of a package that only an extra of this project installs.

  Args:
    module: the module's name.
    extra: the extra, as in `pip install -e '.[EXTRA]'`.
    needed_by: the flag or key that needs it, for the message.

  Raises:
    UserError: the package is not installed, or its installation is broken; the message says how
      to install it.
  """
  try:
    return importlib.import_module(module)
  except ImportError as error:
    fault = "is not installed" if isinstance(error, ModuleNotFoundError) else "cannot be imported"
    raise UserError(
      f"{needed_by} needs {module.partition('.')[0]}, which {fault} ({format_error(error)}): "
      f"from a clone, pip install -e '.[{extra}]'"
    ) from None
