"""Resizing of feature maps: pooling by two, linear interpolation to a finer grid."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from attn_unet_jax.models.ops.single import max_pool_p, single_dilation, upsample_p

Upsampling = Literal["align_corners", "half_pixel", "tf1"]


def max_pool(x: jax.Array) -> jax.Array:
  """Takes the largest of every 2x2x2 block: [N, X, Y, Z, C] to [N, X/2, Y/2, Z/2, C].

  By reshape, since the gradient of `reduce_window` is a select-and-scatter, slow on every device.
  """
  if single_dilation():
    single: jax.Array = max_pool_p.bind(x)
    return single
  n, X, Y, Z, channels = x.shape
  blocks = x.reshape(n, X // 2, 2, Y // 2, 2, Z // 2, 2, channels)
  return larger_of_two(larger_of_two(larger_of_two(blocks, 2), 3), 4)


def larger_of_two(x: jax.Array, axis: int) -> jax.Array:
  """Takes the larger element along an axis of two, which is removed; NaN where one is NaN.

  The gradient goes to the larger element, of equal ones to the second.

  `max` is not used: its gradient looks for the maximum among the operands and finds none if a
  compiler computes these again with other rounding. This happened on the CPU with jax 0.10.2: 0 / 0
  at a low optimisation level, and at the usual one, without any warning, a first gradient of the
  demo that was 15 % off.
  """
  first, second = (jax.lax.index_in_dim(x, i, axis, keepdims=False) for i in (0, 1))
  return jnp.where((first > second) | jnp.isnan(first), first, second)


def interpolation_matrix(size: int, target: int, mode: Upsampling) -> np.ndarray:
  """Returns the weights [target, size] of linear interpolation along one axis.

  Output i is read at i (size - 1) / (target - 1) with `align_corners` (the first and last samples
  stay where they are), at (i + 0.5) size / target - 0.5, held inside, with `half_pixel`, and at
  i size / target, held inside, with `tf1` (TensorFlow 1's default).
  """
  i = np.arange(target)
  if mode == "align_corners":
    # A single output has only one corner to align, and reads sample 0.
    place = i * ((size - 1) / max(target - 1, 1))
  elif mode == "tf1":
    place = np.minimum(i * (size / target), size - 1)
  else:
    place = np.clip((i + 0.5) * (size / target) - 0.5, 0, size - 1)
  result: np.ndarray = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(size)))
  return result


def upsample(x: jax.Array, shape: Sequence[int], mode: Upsampling = "align_corners") -> jax.Array:
  """Interpolates x [N, X, Y, Z, C] trilinearly to the grid `shape`, in x's type.

  It needs no gather forward and no scatter backward: along X, on CUDA along Y and Z too, shifted
  neighbours are added up; else a small matrix is applied. `align_corners` is the convention of the
  released code (PyTorch before 0.4).
  """
  if single_dilation():
    single: jax.Array = upsample_p.bind(x, shape=tuple(shape), mode=mode)
    return single
  # X on every platform: devices may divide it, and a matrix would need the whole axis on each.
  x = interpolate_by_neighbours(x, 1, shape[0], mode)
  if x.shape[2:4] == tuple(shape[1:]):
    return x

  def over_y_and_z(interpolated: Callable[..., jax.Array], x: jax.Array) -> jax.Array:
    """Interpolates along Y, then along Z, by one of the forms."""
    return interpolated(interpolated(x, 2, shape[1], mode), 3, shape[2], mode)

  result: jax.Array = jax.lax.platform_dependent(
    x,
    # By itself no faster on CUDA, but the step compiled for an H200 then holds 2.99 GiB instead
    # of 3.09 (docs/reference/gpu.md).
    cuda=functools.partial(over_y_and_z, interpolate_by_neighbours),
    default=functools.partial(over_y_and_z, _interpolate_by_matrix),
  )
  return result


def _interpolate_by_matrix(x: jax.Array, axis: int, target: int, mode: Upsampling) -> jax.Array:
  """Interpolates along one axis by a matrix."""
  if x.shape[axis] == target:
    return x
  weights = jnp.asarray(interpolation_matrix(x.shape[axis], target, mode), x.dtype)
  return jnp.moveaxis(jnp.tensordot(weights, x, (1, axis)), 0, axis)


def interpolate_by_neighbours(x: jax.Array, axis: int, target: int, mode: Upsampling) -> jax.Array:
  """Interpolates x [N, X, Y, Z, C] along one axis by a sum of shifted copies.

  Output `factor` q + r lies less than one sample from sample q, in all modes and for every r, so
  it is a sum over q - 1, q and q + 1: devices that divide the axis need one plane of each neighbour
  and no more. Where the target is no multiple of the size a matrix is applied.
  """
  size = x.shape[axis]
  factor, rest = divmod(target, size)
  if rest:
    return _interpolate_by_matrix(x, axis, target, mode)
  if factor == 1:
    return x
  # A column of zeros on each side: the first sample has no neighbour below, the last none above.
  table = np.pad(interpolation_matrix(size, target, mode), ((0, 0), (1, 1)))
  # weights[q, r, k]: of sample q - 1 + k in output `factor` q + r
  weights = np.stack([table[factor * q : factor * (q + 1), q : q + 3] for q in range(size)])
  weights = weights.reshape(*weights.shape, *(1,) * (x.ndim - axis - 1))
  near = [_shift_along(x, axis, 1), x, _shift_along(x, axis, -1)]
  planes = []
  for r in range(factor):
    # Neighbours whose weights are all zero are left out: each would cost a product and a sum.
    used = [k for k in range(3) if weights[:, r, k].any()]
    terms = [jnp.asarray(weights[:, r, k], x.dtype) * near[k] for k in used]
    planes.append(functools.reduce(operator.add, terms))
  return _interleave(planes, axis)


def _interleave(planes: Sequence[jax.Array], axis: int) -> jax.Array:
  """Puts the planes of several arrays of one shape in turn along an axis."""
  shape = planes[0].shape
  target = len(planes) * shape[axis]
  return jnp.stack(planes, axis + 1).reshape(*shape[:axis], target, *shape[axis + 1 :])


def _shift_along(x: jax.Array, axis: int, by: int) -> jax.Array:
  """Shifts x [N, X, Y, Z, C] along an axis and fills with zeros."""
  edges = [(by, -by, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
  return jax.lax.pad(x, jnp.zeros((), x.dtype), edges)


# For constants of a program that is written down: a prior is interpolated before.
upsample_p.def_impl(lambda x, *, shape, mode: upsample(x, shape, mode))
