"""Further intensity augmentations by name, for `config.augment.extra`. Loads no JAX.

Each is a pure function `(key, image [X, Y, Z] float32, normalised) -> image` in a file of its own
and a line here. One that lies outside the package is named by its import path.
"""

from collections.abc import Callable
from typing import Any

from attn_unet_jax.runtime.import_path import load_object

# Paths, not functions: naming an augmentation loads no JAX.
AUGMENTATIONS: dict[str, str] = {"gamma": "attn_unet_jax.augment.gamma:apply_gamma"}


def load_augmentation(name: str) -> Callable[..., Any]:
  """Returns the function of a name of `AUGMENTATIONS`, or of an import path.

  Raises:
    UserError: it cannot be imported.
  """
  augmentation: Callable[..., Any] = load_object(
    AUGMENTATIONS.get(name, name), "config.augment.extra"
  )
  return augmentation
