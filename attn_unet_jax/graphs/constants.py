"""Computes what depends on constants alone."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from attn_unet_jax.graphs.elementwise import is_elementwise
from attn_unet_jax.graphs.graph import is_batched
from attn_unet_jax.graphs.values import Constant, UnsupportedProgramError, Value

# Those that every network has: JAX would compile a program for each of them and each shape.
_IN_NUMPY: Mapping[str, Callable[..., Any]] = {
  "add": np.add,
  "convert_element_type": lambda x, **params: x.astype(params["new_dtype"]),
  "div": np.divide,
  "mul": np.multiply,
  "neg": np.negative,
  "reshape": lambda x, **params: x.reshape(params["new_sizes"]),
  "rsqrt": lambda x, **_: (1 / np.sqrt(x.astype(float))).astype(x.dtype),
  "sub": np.subtract,
  "transpose": lambda x, **params: x.transpose(params["permutation"]),
}


def compute_constants(equation: Any, values: Sequence[Constant]) -> list[Value]:
  """Computes an operation of a program on constants; returns its results.

  Raises:
    UnsupportedProgramError: the result would differ between the windows.
  """
  operation, params = equation.primitive.name, equation.params
  shapes = [tuple(variable.aval.shape) for variable in equation.outvars]
  arrays = [value.array for value in values]
  if operation == "broadcast_in_dim":
    # Not in full: one value for each channel can still become part of a convolution.
    sizes = [1] * len(shapes[0])
    for axis, place in enumerate(params["broadcast_dimensions"]):
      sizes[place] = arrays[0].shape[axis]
    return [Constant(arrays[0].reshape(sizes), shapes[0])]
  if is_elementwise(operation):
    # Operations on elements work on what is stored, however often it stands for others.
    if any(array.ndim for array in arrays):
      arrays = list(np.broadcast_arrays(*arrays))
  elif any(is_batched(n) for value in values for n in value.shape):
    # In full it would have as many windows as were traced, which is no number of the user's.
    raise UnsupportedProgramError(f"{operation} of a constant for every window")
  else:
    pairs = zip(arrays, values, strict=True)
    arrays = [np.broadcast_to(array, value.shape) for array, value in pairs]
  found = _compute(equation.primitive, arrays, params)
  return [Constant(np.asarray(a), shape) for a, shape in zip(found, shapes, strict=True)]


def _compute(primitive: Any, arrays: Sequence[np.ndarray], params: Mapping[str, Any]) -> Any:
  if primitive.name in _IN_NUMPY:
    function = _IN_NUMPY[primitive.name]
    return [function(*arrays) if isinstance(function, np.ufunc) else function(*arrays, **params)]
  # JAX computes the rare ones itself, so that a rule of ours cannot differ from it.
  found = primitive.bind(*arrays, **params)
  return found if primitive.multiple_results else [found]
