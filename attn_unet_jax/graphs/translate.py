"""Walks a traced program and adds each of its operations to a graph."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from attn_unet_jax.graphs import axes, elementwise, products
from attn_unet_jax.graphs.constants import compute_constants
from attn_unet_jax.graphs.graph import Graph
from attn_unet_jax.graphs.values import Constant, Tensor, UnsupportedProgramError, Value

# Operations that run a program once, and where they keep it. Others keep one too, as loops do and
# sums by a function of the user's, but do not run it once.
_CALLS = (
  *("call", "closed_call", "core_call", "jit", "pjit", "checkpoint", "remat", "remat2"),
  *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
)
_PROGRAMS = ("jaxpr", "call_jaxpr", "fun_jaxpr")


def translate_program(graph: Graph, program: ClosedJaxpr, inputs: Sequence[Value]) -> list[Value]:
  """Adds a program to a graph and returns its results.

  Raises:
    UnsupportedProgramError: it has an operation that no rule is for; the message names it.
  """
  constants = [_as_constant(value) for value in program.consts]
  return _translate(graph, program.jaxpr, constants, inputs)


def _as_constant(value: Any) -> Constant:
  array = np.asarray(value)
  return Constant(array, array.shape)


def _translate(
  graph: Graph, jaxpr: Jaxpr, constants: Sequence[Value], inputs: Sequence[Value]
) -> list[Value]:
  known: dict[Any, Value] = {}
  known.update(zip(jaxpr.constvars, constants, strict=True))
  known.update(zip(jaxpr.invars, inputs, strict=True))
  read = [*(one for equation in jaxpr.eqns for one in equation.invars), *jaxpr.outvars]
  uses = Counter(one for one in read if not isinstance(one, Literal))

  def look_up(variable: Any) -> Value:
    """Returns the value of a variable or a literal of the program."""
    if isinstance(variable, Literal):
      # A literal may be a number of Python, of which NumPy would make float64 or int64.
      aval: Any = variable.aval
      return _as_constant(np.asarray(variable.val, aval.dtype))
    value = known[variable]
    # Another reader wants the result as it is.
    if isinstance(value, Tensor) and value.convolution and uses[variable] > 1:
      value = replace(value, convolution=None)
    return value

  for equation in jaxpr.eqns:
    values = [look_up(one) for one in equation.invars]
    known.update(zip(equation.outvars, _apply(graph, equation, values), strict=True))
  return [look_up(one) for one in jaxpr.outvars]


def _apply(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
  """Applies an operation of a program to values; returns its results."""
  operation, params = equation.primitive.name, equation.params
  # A program with a form for each platform asks which one it runs on.
  if operation == "platform_index":
    return [_as_constant(np.int32(_choose_platform(params["platforms"])))]
  if operation == "cond":
    return _take_branch(graph, params["branches"], values)
  # It only tells XLA what not to merge.
  if operation == "optimization_barrier":
    return list(values)
  if operation in _CALLS:
    inner = next(params[name] for name in _PROGRAMS if name in params)
    # Those of `remat` keep a program without constants.
    if isinstance(inner, Jaxpr):
      return _translate(graph, inner, [], values)
    return translate_program(graph, inner, values)
  results = [variable.aval for variable in equation.outvars]
  if all(isinstance(one, Constant) for one in values):
    return compute_constants(equation, [one for one in values if isinstance(one, Constant)])
  return _apply_rule(graph, operation, params, values, results)


def _choose_platform(platforms: Sequence[Any]) -> int:
  """Returns which form of several is written down: the one for no platform, or the CPU's."""
  for index, names in enumerate(platforms):
    if names is None:
      return index
  return next((i for i, names in enumerate(platforms) if "cpu" in names), 0)


def _take_branch(graph: Graph, branches: Sequence[Any], values: Sequence[Value]) -> list[Value]:
  index = values[0]
  if not isinstance(index, Constant):
    raise UnsupportedProgramError("a choice that depends on the scan")
  return translate_program(graph, branches[int(index.array)], values[1:])


def _apply_rule(
  graph: Graph, operation: str, params: Any, values: Sequence[Value], results: Sequence[Any]
) -> list[Value]:
  if elementwise.is_elementwise(operation):
    return [elementwise.apply_elementwise(graph, operation, values, params, results[0])]
  if operation == "conv_general_dilated":
    return [products.convolve(graph, values[0], values[1], params, results[0])]
  if operation == "dot_general":
    return [products.multiply(graph, values[0], values[1], params, results[0])]
  # Before a tensor is asked for: here the first of several values may be a constant.
  if operation == "concatenate":
    return [axes.concatenate(graph, values, params["dimension"])]
  if operation == "stack":
    return [axes.stack(graph, values, params["axis"])]
  x = values[0]
  if not isinstance(x, Tensor):
    raise UnsupportedProgramError(f"the operation {operation} of a constant")
  if operation == "pad":
    return [axes.pad(graph, x, values[1], params)]
  if operation == "split":
    return list(axes.split(graph, x, params))
  return [_apply_to_one(graph, operation, x, params, results[0])]


def _apply_to_one(graph: Graph, operation: str, x: Tensor, params: Any, result: Any) -> Tensor:
  if axes.is_reduction(operation):
    return axes.reduce(graph, operation, x, params)
  if operation == "transpose":
    return axes.transpose(graph, x, params)
  if operation == "broadcast_in_dim":
    return axes.broadcast_in_dim(graph, x, params)
  if operation == "squeeze":
    return axes.squeeze(graph, x, params)
  if operation == "reshape":
    return axes.reshape(graph, x, result.shape)
  if operation == "slice":
    # None stands for steps of one.
    steps = params["strides"] or (1,) * len(x.shape)
    return axes.cut(graph, x, params["start_indices"], params["limit_indices"], steps)
  # These two are no operations of XLA: `single_operations` traces them for this translation.
  if operation == "max_pool_3d":
    return products.max_pool(graph, x)
  if operation == "upsample_3d":
    return products.upsample(graph, x, params["shape"], params["mode"])
  raise UnsupportedProgramError(f"the operation {operation}")


def trace_program(function: Any, *shapes: tuple[int, ...]) -> ClosedJaxpr:
  """Traces a function of float32 arrays of some shapes."""
  arrays = [jax.ShapeDtypeStruct(shape, np.dtype(np.float32)) for shape in shapes]
  program: ClosedJaxpr = jax.make_jaxpr(function)(*arrays)
  return program
