"""Counts the operations and the stored activations of a network in its traced program."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.extend import core

from attn_unet_jax.training.state import TrainState


def forward_cost(module: nn.Module, state: TrainState, shape: tuple[int, ...]) -> tuple[int, int]:
  """Counts the operations of a forward pass in training, and the bytes of its activations.

  Args:
    module: the network with `native` convolutions; with `auto` the forms of all platforms would be
      counted.
    state: its abstract state.
    shape: the shape of the images, [N, X, Y, Z, 1].

  Returns:
    the number of operations, and the bytes of the activations that the backward pass needs.
  """

  def apply_network(variables: Any, image: jax.Array) -> Any:
    """Applies the network as in training."""
    rngs = {"dropout": jax.random.key(0)}
    return module.apply(variables, image, train=True, mutable=["batch_stats"], rngs=rngs)

  image = jax.ShapeDtypeStruct(shape, jnp.float32)
  jaxpr = jax.make_jaxpr(apply_network)(state.variables, image)
  operations = activations = 0
  for equation in _iterate_equations(jaxpr.jaxpr):
    output: Any = equation.outvars[0].aval
    name = equation.primitive.name
    if name in ("conv_general_dilated", "dot_general"):
      # A multiplication and an addition each.
      operations += 2 * output.size * _count_multiply_adds(equation)
      # The backward pass needs the output of the product and that of its normalisation.
      activations += 2 * output.size * output.dtype.itemsize
  return operations, activations


def _iterate_equations(jaxpr: core.Jaxpr) -> Iterator[core.JaxprEqn]:
  """Yields the equations of a program, with calls and branches replaced by their equations."""
  for equation in jaxpr.eqns:
    inner = list(_iterate_inner_jaxprs(equation))
    if inner:
      for sub in inner:
        yield from _iterate_equations(sub)
    else:
      yield equation


def _iterate_inner_jaxprs(equation: core.JaxprEqn) -> Iterator[core.Jaxpr]:
  """Yields the programs that an equation calls."""
  # Primitives name these parameters differently, and branches are a tuple of programs.
  for value in equation.params.values():
    for item in value if isinstance(value, (tuple, list)) else (value,):
      if isinstance(item, core.ClosedJaxpr):
        yield item.jaxpr
      elif isinstance(item, core.Jaxpr):
        yield item


def _count_multiply_adds(equation: Any) -> int:
  """Returns the number of multiply-adds per output value of a product."""
  if equation.primitive.name == "dot_general":
    (axes, _), _ = equation.params["dimension_numbers"]
    return math.prod(equation.invars[0].aval.shape[axis] for axis in axes)
  kernel = equation.invars[1].aval
  out_axis = equation.params["dimension_numbers"].rhs_spec[0]
  # Each output channel has its own filter, which covers the other axes of the kernel.
  result: int = kernel.size // kernel.shape[out_axis]
  return result
