"""Objects by their import path, `package.module:name`, so that users can bring their own."""

import importlib
from typing import Any

from attn_unet_jax.runtime.errors import UserError


def load_object(path: str, what: str) -> Any:
  """Imports a module and returns an object in it.

  Args:
    path: `package.module:name`.
    what: what names it, for the message, like `config.model.name`.

  Raises:
    UserError: there is no such module or no such name in it, or the module does not load.
  """
  module, _, name = path.partition(":")
  try:
    return getattr(importlib.import_module(module), name)
  except ModuleNotFoundError as error:
    raise UserError(
      f"{what}={path!r}: there is no module {error.name!r}; install it, or put the folder "
      "that it lies in into PYTHONPATH"
    ) from None
  except AttributeError:
    raise UserError(f"{what}={path!r}: the module {module} has no {name!r}") from None
  except Exception as error:  # whatever a module of someone else raises
    raise UserError(f"{what}={path!r}: does not load ({type(error).__name__}: {error})") from None
