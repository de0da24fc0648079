"""Imports the packages of the extra `hnn` when they are first needed."""

import importlib
from types import ModuleType

from attn_unet_jax.runtime.errors import UserError


def require_extra(module: str) -> ModuleType:
  """Imports a module of scikit-image or scikit-learn.

  Raises:
    UserError: the package is not installed; the message says how to install it.
  """
  try:
    return importlib.import_module(module)
  except ModuleNotFoundError as error:
    raise UserError(
      f"config.stages.count=2 needs {module.partition('.')[0]}, which is not installed "
      f"({error}): pip install '.[hnn]'"
    ) from None
