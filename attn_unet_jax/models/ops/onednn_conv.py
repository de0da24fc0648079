"""oneDNN's 3-D convolution, the form `onednn`: a call from the compiled program, on a CPU alone.

The calls are in a package of their own, `attn_unet_jax_onednn` in `native/`, which is built by a
C++ compiler and need not be there.
"""

import functools
import importlib
from typing import Any

import jax
import jax.numpy as jnp

from attn_unet_jax.runtime.errors import UserError, format_error

_PACKAGE = "attn_unet_jax_onednn"

Triple = tuple[int, int, int]
Pads = tuple[tuple[int, int], ...]


@functools.cache
def find_onednn() -> Any:
  """Returns the package, or the ImportError or OSError that tells why it cannot be used."""
  try:
    return importlib.import_module(_PACKAGE)
  except (ImportError, OSError) as error:  # OSError: its library, or oneDNN, cannot be loaded
    # Not raised: `functools.cache` remembers what is returned alone.
    return error


def has_onednn() -> bool:
  """Returns whether the form can be computed here."""
  return not isinstance(find_onednn(), Exception)


def require_onednn() -> Any:
  """Returns the package.

  Raises:
    UserError: it is not there, or cannot be loaded.
  """
  found = find_onednn()
  if isinstance(found, Exception):
    raise UserError(
      f"config.model.conv='onednn': needs {_PACKAGE}, which cannot be imported "
      f"({format_error(found)}): build it by make install-native, or use --config.model.conv=auto"
    )
  return found


def multiplies_bfloat16() -> bool:
  """Returns whether the package is here and the processor multiplies in bfloat16."""
  return has_onednn() and bool(find_onednn().has_bfloat16())


def can_use_onednn(dtype: Any) -> bool:
  """Returns whether oneDNN computes convolutions of a type faster than our own forms.

  Raises:
    UserError: see `require_onednn`.
  """
  package = require_onednn()
  # Where the processor does not multiply in bfloat16, oneDNN imitates it or has no convolution.
  return dtype == jnp.float32 or (dtype == jnp.bfloat16 and bool(package.has_bfloat16()))


def convolve_by_onednn(x: jax.Array, kernel: jax.Array, strides: Triple, pads: Pads) -> jax.Array:
  """Convolves; see `conv3d` for the arguments."""
  result: jax.Array = require_onednn().compute_output(x, kernel, strides, pads)
  return result


def onednn_gradients(
  x: jax.Array, kernel: jax.Array, g: jax.Array, strides: Triple, pads: Pads
) -> tuple[jax.Array, jax.Array]:
  """Computes the gradients of `convolve_by_onednn` in x and the kernel, for the cotangent g."""
  package = require_onednn()
  return (
    package.compute_input_gradient(kernel, g, x.shape, strides, pads),
    package.compute_kernel_gradient(x, g, kernel.shape, strides, pads),
  )
