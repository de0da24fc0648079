"""Rules of operations that take one element of each array."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attn_unet_jax.graphs.graph import Graph, count_elements
from attn_unet_jax.graphs.values import (
  Constant,
  FoldableConvolution,
  Shape,
  Tensor,
  UnsupportedProgramError,
  Value,
)

# Nodes that take the same operands in the same order as JAX's operation.
_SIMPLE: Mapping[str, str] = {
  "abs": "Abs",
  "add": "Add",
  "and": "And",
  "ceil": "Ceil",
  "cos": "Cos",
  "div": "Div",
  "eq": "Equal",
  "erf": "Erf",
  "exp": "Exp",
  "floor": "Floor",
  "ge": "GreaterOrEqual",
  "gt": "Greater",
  "le": "LessOrEqual",
  "log": "Log",
  "logistic": "Sigmoid",
  "lt": "Less",
  "max": "Max",
  "min": "Min",
  "mul": "Mul",
  "neg": "Neg",
  "not": "Not",
  "or": "Or",
  "pow": "Pow",
  "sign": "Sign",
  "sin": "Sin",
  "sqrt": "Sqrt",
  "sub": "Sub",
  "tanh": "Tanh",
}
# In JAX these combine the bits of integers; in ONNX they know truth values only.
_LOGICAL = ("and", "not", "or")
# ONNX has no node like these: `_add_nodes` writes another one, or several.
_COMPOSED = (
  *("clamp", "convert_element_type", "copy", "expm1", "integer_pow", "is_finite", "log1p", "ne"),
  *("rsqrt", "select_n", "square", "stop_gradient"),
)


def is_elementwise(operation: str) -> bool:
  """Returns whether `apply_elementwise` knows an operation."""
  return operation in _SIMPLE or operation in _COMPOSED


def apply_elementwise(
  graph: Graph, operation: str, inputs: Sequence[Value], params: Mapping[str, Any], result: Any
) -> Value:
  """Adds an operation on elements to the graph.

  Args:
    graph: what the nodes are added to.
    operation: its name in JAX.
    inputs: at least one is a tensor; scalars, and arrays of the result's number of axes.
    params: its parameters in JAX.
    result: shape and type of the result.

  Raises:
    UnsupportedProgramError: ONNX has the operation for truth values only, and these are numbers.
  """
  _check_truth(operation, inputs)
  folded = _fold_into_convolution(graph, operation, inputs, result.shape)
  if folded is not None:
    return folded
  tensors = [one for one in inputs if isinstance(one, Tensor)]
  # The largest one stays as it is stored.
  order = max(tensors, key=lambda one: (len(one.shape), count_elements(one.sizes))).order
  names = [_name_in_order(graph, one, order) for one in inputs]
  # Scalars have no axes. Of the others an axis has its full size or one element.
  stored = [one.sizes for one in inputs if len(one.shape) == len(result.shape)]
  sizes = tuple(max(axis) for axis in zip(*stored, strict=True))
  name = _add_nodes(graph, operation, names, inputs, params)
  return Tensor(name, tuple(result.shape), sizes, order, np.dtype(result.dtype))


def _check_truth(operation: str, inputs: Sequence[Value]) -> None:
  """Raises UnsupportedProgramError where JAX combines bits, or chooses by a number."""
  tested = inputs if operation in _LOGICAL else inputs[:1] if operation == "select_n" else ()
  for one in tested:
    dtype = one.dtype if isinstance(one, Tensor) else one.array.dtype
    if dtype != np.bool_:
      raise UnsupportedProgramError(f"the operation {operation} of {dtype}")


def _name_in_order(graph: Graph, value: Value, order: Sequence[int]) -> str:
  if isinstance(value, Tensor):
    return graph.reorder(value, order).name if value.shape else value.name
  # Constants are transposed here, not by a node at every run.
  array = value.array
  return graph.add_array(array.transpose(order) if array.ndim == len(order) else array)


def _add_nodes(
  graph: Graph,
  operation: str,
  names: list[str],
  inputs: Sequence[Value],
  params: Mapping[str, Any],
) -> str:
  """Adds the nodes of an operation on stored arrays; returns the name of its result."""

  def scalar(value: float) -> str:
    """Adds a number and returns its name."""
    return graph.add_array(np.array(value, np.float32))

  # Runtimes compute Relu together with the convolution before it, but not a maximum.
  if operation == "max" and any(_is_zero(one) for one in inputs):
    return graph.add_node("Relu", [names[1 if _is_zero(inputs[0]) else 0]])
  if operation in _SIMPLE:
    return graph.add_node(_SIMPLE[operation], names)
  if operation == "ne":
    return graph.add_node("Not", [graph.add_node("Equal", names)])
  if operation == "square":
    return graph.add_node("Mul", [names[0], names[0]])
  if operation == "rsqrt":
    return graph.add_node("Reciprocal", [graph.add_node("Sqrt", names)])
  if operation == "log1p":
    # Near 0 it is less exact than JAX's. The export compares the answers of both before it writes.
    return graph.add_node("Log", [graph.add_node("Add", [names[0], scalar(1)])])
  if operation == "expm1":
    return graph.add_node("Sub", [graph.add_node("Exp", names), scalar(1)])
  if operation == "integer_pow":
    return graph.add_node("Pow", [names[0], scalar(params["y"])])
  if operation == "is_finite":
    # Infinite minus itself is NaN, which equals nothing.
    difference = graph.add_node("Sub", [names[0], names[0]])
    return graph.add_node("Equal", [difference, difference])
  if operation == "clamp":
    # In JAX the bounds stand around the value: lowest, value, highest.
    return graph.add_node("Min", [graph.add_node("Max", [names[1], names[0]]), names[2]])
  if operation == "select_n":
    if len(names) != 3:
      raise UnsupportedProgramError("a choice of more than two")
    # JAX names the case of False first, ONNX that of True.
    return graph.add_node("Where", [names[0], names[2], names[1]])
  if operation == "convert_element_type":
    return graph.add_node("Cast", names, to=graph.cast_type(params["new_dtype"]))
  return names[0]  # copy, stop_gradient


def _is_zero(value: Value) -> bool:
  return isinstance(value, Constant) and value.array.size == 1 and not value.array.any()


def _fold_into_convolution(
  graph: Graph, operation: str, inputs: Sequence[Value], shape: Shape
) -> Tensor | None:
  """Changes the convolution before instead, where a constant of each channel is applied to it."""
  if operation not in ("add", "sub", "mul") or len(inputs) != 2:
    return None
  tensor, other = inputs if isinstance(inputs[0], Tensor) else (inputs[1], inputs[0])
  if not isinstance(tensor, Tensor) or not isinstance(other, Constant):
    return None
  found = tensor.convolution
  # A result that is larger than the convolution's is not one of a changed kernel.
  if found is None or tensor.shape != tuple(shape):
    return None
  channels = _spread_over_channels(other, tensor)
  if channels is None:
    return None
  kernel, bias = found.kernel, found.bias
  if operation == "mul":
    kernel = kernel * channels.reshape(-1, *[1] * (kernel.ndim - 1))
    bias = bias * channels
  elif operation == "add":
    bias = bias + channels
  elif tensor is inputs[0]:
    bias = bias - channels
  else:
    kernel, bias = -kernel, channels - bias
  # The convolution before now has no reader, and `Graph.finish` leaves it out.
  changed = FoldableConvolution(found.inputs, kernel, bias, found.attributes)
  name = graph.add_convolution(changed)
  return Tensor(name, tensor.shape, tensor.sizes, tensor.order, tensor.dtype, changed)


def _spread_over_channels(value: Constant, like: Tensor) -> np.ndarray | None:
  """Returns a value for each channel; None if it differs within one."""
  # A convolution's result is stored as [N, C, ...].
  axis = like.order[1]
  if value.array.size == 1:
    return np.full(like.shape[axis], value.array.item(), value.array.dtype)
  if value.array.ndim != len(like.shape) or value.array.size != value.sizes[axis]:
    return None
  return value.array.reshape(-1)
