"""Changes that may bring the training step nearer to a GPU's memory limit, put in place by name.

They compute what the program's own functions compute, and are no part of the program before
`benchmarks.step_candidates` has shown on a GPU that they gain there.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from attn_unet_jax.models import layers
from attn_unet_jax.models.ops import resize
from attn_unet_jax.training import optimizer, state, step

_EPSILON, _MOMENTUM = 1e-5, 0.9
_OVER = (0, 1, 2, 3)


@jax.custom_vjp
def normalise_relu(x: jax.Array, scale: jax.Array, bias: jax.Array) -> tuple[jax.Array, ...]:
  """Normalises x [N, X, Y, Z, C] by its batch and takes the ReLU, with a backward pass of its own.

  XLA writes the gradient behind the ReLU to memory, since two sums and the input's gradient need
  it. Here each of both passes masks the gradient that came in again.

  Returns:
    the result in x's type; mean and variance [C], float32, through which nothing flows back.
  """
  return _normalise(x, scale, bias)[0]


def _normalise(
  x: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[tuple[jax.Array, ...], tuple[Any, ...]]:
  wide = x.astype(jnp.float32)
  mean = wide.mean(_OVER)
  # As nn.BatchNorm: one pass over x for both moments.
  variance = jnp.maximum(0.0, jnp.square(wide).mean(_OVER) - jnp.square(mean))
  inverse = jax.lax.rsqrt(variance + _EPSILON)
  y = nn.relu((wide - mean) * (inverse * scale) + bias).astype(x.dtype)
  return (y, mean, variance), (x, scale, bias, mean, inverse)


def _differentiate(
  kept: tuple[Any, ...], gradients: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array, jax.Array]:
  x, scale, bias, mean, inverse = kept

  def mask(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns normalised x, and the gradient where the ReLU let it through."""
    normal = (x.astype(jnp.float32) - mean) * inverse
    return normal, jnp.where(normal * scale + bias > 0, gradient.astype(jnp.float32), 0.0)

  normal, masked = mask(x, gradients[0])
  of_bias, of_scale = masked.sum(_OVER), (masked * normal).sum(_OVER)
  # Without a barrier XLA sees that both passes compute the same, and keeps it in memory.
  x_again, gradient_again, of_bias, of_scale = jax.lax.optimization_barrier(
    (x, gradients[0], of_bias, of_scale)
  )
  normal, masked = mask(x_again, gradient_again)
  count = x.size / x.shape[-1]
  of_x = scale * inverse * (masked - of_bias / count - normal * (of_scale / count))
  return of_x.astype(x.dtype), of_scale, of_bias


normalise_relu.defvjp(_normalise, _differentiate)


class _BatchNormRelu(nn.Module):
  """Normalises and takes the ReLU, with the variables of nn.BatchNorm under the same names."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Normalises by the batch, takes the ReLU, and updates the running statistics."""
    size = x.shape[-1:]
    scale = self.param("scale", layers.scale_around_one, size, jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, size, jnp.float32)
    kept = [
      self.variable("batch_stats", "mean", jnp.zeros, size, jnp.float32),
      self.variable("batch_stats", "var", jnp.ones, size, jnp.float32),
    ]
    y, *now = normalise_relu(x, scale, bias)
    if not self.is_initializing():
      for old, new in zip(kept, now, strict=True):
        old.value = _MOMENTUM * old.value + (1 - _MOMENTUM) * new
    return y


class _NamedAsBatchNorm(nn.Module):
  """Stands where `layers.BatchNorm` stands, one level of names above nn.BatchNorm."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [N, X, Y, Z, C] to the same shape."""
    return _BatchNormRelu(name="BatchNorm_0")(x)


class ConvNormRelu(layers.ConvNormRelu):
  """`layers.ConvNormRelu` by `normalise_relu` in training, on one device."""

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, X, Y, Z, C] to [N, X, Y, Z, features]."""
    x = layers.Conv(self.features, self.size, form=self.form, dtype=self.dtype)(x)
    if train:
      return _NamedAsBatchNorm(name="BatchNorm_0")(x)
    return nn.relu(layers.BatchNorm(self.dtype, self.batch_axis)(x, train))


def interleave_by_padding(planes: Sequence[jax.Array], axis: int) -> jax.Array:
  """Puts planes in turn as `resize` does, by sums of arrays that zeros lie between.

  A pad and a sum can be computed within what reads them; a stack that is reshaped is copied first.
  """
  apart = []
  for r, plane in enumerate(planes):
    edge = (r, len(planes) - 1 - r, len(planes) - 1)
    edges = [edge if i == axis else (0, 0, 0) for i in range(plane.ndim)]
    apart.append(jax.lax.pad(plane, jnp.zeros((), plane.dtype), edges))
  return sum(apart[1:], apart[0])


def compute_flat_norm(tree: Any) -> jax.Array:
  """Computes the norm of all arrays of a tree as one."""
  return jnp.linalg.norm(jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(tree)]))


def build_flat_optimizer(recipe: Any) -> optax.GradientTransformation:
  """Builds the recipe's optimiser on one array of all parameters; not by their names."""
  return optax.flatten(_build_optimizer(recipe))


_build_optimizer = optimizer.build_optimizer


@contextlib.contextmanager
def _replace(*places: tuple[Any, str, Any]) -> Iterator[None]:
  with contextlib.ExitStack() as stack:
    for owner, name, other in places:
      stack.enter_context(mock.patch.object(owner, name, other))
    yield


def put_in_place(name: str) -> contextlib.AbstractContextManager[None]:
  """Puts a candidate in the place of what it replaces, for what is traced meanwhile."""
  return _replace(*CANDIDATES[name])


# Name -> owner, name of the function there, and what takes its place.
CANDIDATES: dict[str, tuple[tuple[Any, str, Any], ...]] = {
  "as it is": (),
  "gradient masked twice": ((layers, "ConvNormRelu", ConvNormRelu),),
  "upsampling by padding": ((resize, "_interleave", interleave_by_padding),),
  "upsampling by matrices": ((resize, "interpolate_by_neighbours", resize._interpolate_by_matrix),),
  "one array of parameters": (
    (state, "build_optimizer", build_flat_optimizer),
    (step, "build_optimizer", build_flat_optimizer),
    (optax.tree, "norm", compute_flat_norm),
  ),
}
