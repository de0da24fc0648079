"""Initialisers whose values come in blocks of a few sizes, so that few programs are compiled.

For a generator of random numbers XLA's CPU backend takes a fifth of a second: half a minute of CPU
time for all parameters of a network, if each has its own. Here a parameter is the start of a block,
from a program that is compiled once for all blocks of its size. What a generator draws first does
not depend on how much it draws, so the values are those of a block of the parameter's own size.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

Shape = tuple[int, ...]

# A few sizes, each a program of its own; above 64 at most eight times what a parameter needs.
_LEAST_BLOCK, _RATIO = 64, 8
# The standard deviation of the standard normal distribution between -2 and 2.
_SD_WITHIN_TWO = 0.87962566103423978


def fan_in(shape: Shape) -> float:
  """Counts the terms of an output of a convolution, kernel [..., C, D]."""
  return math.prod(shape[:-1])


def mean_fan(shape: Shape) -> float:
  """Returns the mean of the terms of an output and of the outputs of an input."""
  return (math.prod(shape[:-1]) + math.prod(shape[:-2]) * shape[-1]) / 2


def scaled_normal(
  scale: float, fan: Callable[[Shape], float] = fan_in, *, truncated: bool = False
) -> nn.initializers.Initializer:
  """Makes the initialiser N(0, scale / fan), as `nn.initializers.variance_scaling`.

  Args:
    scale: 2 is kaiming-normal (He et al. 2015, arXiv:1502.01852).
    fan: of a parameter's shape.
    truncated: draws within two standard deviations of a wider distribution of that variance.
  """

  def init(key: jax.Array, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
    """Draws the first values of a parameter."""
    sd = np.sqrt(np.float32(scale / fan(shape)))
    if truncated:
      block = _draw_truncated(key, _size_block(shape), sd / np.float32(_SD_WITHIN_TWO))
      return _take(block, shape, dtype)
    return draw_normal(key, shape, dtype, 0, sd)

  return init


def draw_normal(
  key: jax.Array, shape: Shape, dtype: Any, mean: float, sd: float | np.float32
) -> jax.Array:
  """Draws N(mean, sd^2)."""
  block = _draw_normal(key, _size_block(shape), np.float32(mean), np.float32(sd))
  return _take(block, shape, dtype)


def draw_uniform(key: jax.Array, shape: Shape, dtype: Any, low: float, high: float) -> jax.Array:
  """Draws U(low, high)."""
  block = _draw_uniform(key, _size_block(shape), np.float32(low), np.float32(high))
  return _take(block, shape, dtype)


def _size_block(shape: Shape) -> int:
  """Returns the size of the block of which an array is the start."""
  size, count = _LEAST_BLOCK, math.prod(shape)
  while size < count:
    size *= _RATIO
  return size


def _take(block: jax.Array, shape: Shape, dtype: Any) -> jax.Array:
  result: jax.Array = _cut(block, tuple(shape)).astype(dtype)
  return result


@functools.partial(jax.jit, static_argnums=1)
def _cut(block: jax.Array, shape: Shape) -> jax.Array:
  return block[: math.prod(shape)].reshape(shape)


@functools.partial(jax.jit, static_argnums=1)
def _draw_normal(key: jax.Array, size: int, mean: jax.Array, sd: jax.Array) -> jax.Array:
  # As `jax.random.normal`, with one factor in place of two.
  low = np.nextafter(np.float32(-1), np.float32(0))
  spread = jax.lax.erf_inv(jax.random.uniform(key, (size,), jnp.float32, low, 1))
  return mean + np.float32(math.sqrt(2)) * sd * spread


@functools.partial(jax.jit, static_argnums=1)
def _draw_truncated(key: jax.Array, size: int, sd: jax.Array) -> jax.Array:
  return jax.random.truncated_normal(key, -2, 2, (size,), jnp.float32) * sd


@functools.partial(jax.jit, static_argnums=1)
def _draw_uniform(key: jax.Array, size: int, low: jax.Array, high: jax.Array) -> jax.Array:
  return jax.random.uniform(key, (size,), jnp.float32, low, high)
