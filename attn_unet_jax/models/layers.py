"""The layers that the networks share: convolution, normalisation, blocks, resizing.

Initialisation is the reference's (ozan-oktay/Attention-Gated-Networks): kaiming-normal kernels,
PyTorch's default biases, batch-norm scales around one. Parameters and batch statistics are float32
whatever the compute type.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from attn_unet_jax.models import conv as convolution

Upsampling = Literal["align_corners", "half_pixel", "tf1"]

# nn.initializers.kaiming_normal truncates; the reference's does not.
kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def uniform_bias(fan_in: int) -> nn.initializers.Initializer:
  """U(-1/sqrt(fan_in), 1/sqrt(fan_in)), PyTorch's default for a convolution's bias."""
  bound = 1 / math.sqrt(fan_in)

  def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init


def scale_around_one(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
  """N(1, 0.02), the reference's start of a batch-norm scale."""
  return 1 + 0.02 * jax.random.normal(key, shape, dtype)


class Conv(nn.Module):
  """3-D convolution, [N, X, Y, Z, C] to [N, X', Y', Z', features].

  Attributes:
    features: output channels.
    size: kernel size on every axis.
    stride: step on every axis.
    padding: `SAME` or `VALID`.
    use_bias: add a bias per output channel.
    bias_init: the bias's initialiser; None is PyTorch's default.
    kernel_init: the kernel's initialiser.
    form: see `attn_unet_jax.models.conv`.
    dtype: compute type; parameters are float32.
  """

  features: int
  size: int = 3
  stride: int = 1
  padding: Literal["SAME", "VALID"] = "SAME"
  use_bias: bool = True
  bias_init: nn.initializers.Initializer | None = None
  kernel_init: nn.initializers.Initializer = kaiming_normal
  form: convolution.Form = "auto"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Convolve x [N, X, Y, Z, C]."""
    shape = (self.size,) * 3 + (x.shape[-1], self.features)
    kernel = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(self.dtype)
    y = convolution.conv3d(
      x.astype(self.dtype),
      kernel,
      strides=(self.stride,) * 3,
      padding=self.padding,
      form=self.form,
    )
    if not self.use_bias:
      return y
    bias_init = self.bias_init or uniform_bias(math.prod(shape[:-1]))
    return biased(y, self.param("bias", bias_init, (self.features,), jnp.float32))


def biased(y: jax.Array, bias: jax.Array) -> jax.Array:
  """Adds a float32 bias [C] to y [..., C]; in y's type.

  In float32, so that the bias's gradient is: a sum over all voxels, which in bfloat16
  stops growing at a few hundred times its terms.
  """
  return (y + bias).astype(y.dtype)


class BatchNorm(nn.Module):
  """Batch normalisation over N, X, Y and Z, with statistics in float32.

  Momentum 0.9 on the running statistics is PyTorch's 0.1; epsilon 1e-5.

  Attributes:
    dtype: compute type.
    batch_axis: name of the axis, of `jax.pmap` or `jax.shard_map`, over which the batch is divided;
      statistics are then those of the whole. None where all of it is seen, or none of the rest.
  """

  dtype: Any = jnp.float32
  batch_axis: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, kept: jax.Array | None = None) -> jax.Array:
    """Normalise by the batch's statistics if `train`, else by the running ones.

    Args:
      x: [N, X, Y, Z, C].
      train: also updates the running statistics,
      kept: but only of these channels, booleans [C]; None: of all.
    """
    norm = nn.BatchNorm(
      use_running_average=not train,
      momentum=0.9,
      epsilon=1e-5,
      dtype=self.dtype,
      scale_init=scale_around_one,
      axis_name=self.batch_axis,
    )
    if kept is None:
      return norm(x)
    names = ("mean", "var")
    before: dict[str, Any] = {name: norm.get_variable("batch_stats", name) for name in names}
    y = norm(x)
    for name in names:
      after: Any = norm.get_variable("batch_stats", name)
      norm.put_variable("batch_stats", name, jnp.where(kept, after, before[name]))
    return y


class ConvNormRelu(nn.Module):
  """Convolution (with bias), batch normalisation, ReLU."""

  features: int
  size: int = 3
  form: convolution.Form = "auto"
  dtype: Any = jnp.float32
  batch_axis: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """[N, X, Y, Z, C] to [N, X, Y, Z, features]."""
    x = Conv(self.features, self.size, form=self.form, dtype=self.dtype)(x)
    return nn.relu(BatchNorm(self.dtype, self.batch_axis)(x, train))


class ConvBlock(nn.Module):
  """Two 3x3x3 convolutions, each with batch normalisation and ReLU."""

  features: int
  form: convolution.Form = "auto"
  dtype: Any = jnp.float32
  batch_axis: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """[N, X, Y, Z, C] to [N, X, Y, Z, features]."""
    options = {"form": self.form, "dtype": self.dtype, "batch_axis": self.batch_axis}
    for _ in range(2):
      x = ConvNormRelu(self.features, **options)(x, train)
    return x


def rematerialised(
  block: type[nn.Module], level: int, levels: int, *, takes_train: bool = True
) -> type[nn.Module]:
  """The block; at the finest `levels` one whose inside is computed again in the backward pass.

  What a backward pass keeps of such a block is its input alone. Its call is `(x, train)`, or `(x)`
  without `takes_train`.
  """
  if level > levels:
    return block
  return nn.remat(block, static_argnums=(2,) if takes_train else ())


def max_pool(x: jax.Array) -> jax.Array:
  """Largest of every 2x2x2 block: [N, X, Y, Z, C] to [N, X/2, Y/2, Z/2, C].

  By reshape, since the gradient of `reduce_window` is a select-and-scatter, slow on every device.
  """
  n, X, Y, Z, channels = x.shape
  blocks = x.reshape(n, X // 2, 2, Y // 2, 2, Z // 2, 2, channels)
  return larger_of_two(larger_of_two(larger_of_two(blocks, 2), 3), 4)


def larger_of_two(x: jax.Array, axis: int) -> jax.Array:
  """The larger element along an axis of two, which goes; NaN where one is.

  The gradient goes to the larger, of equal ones to the second. Not `max`: its gradient looks for
  the maximum among the operands, and where a compiler computes these again with other rounding it
  finds none. Seen on the CPU with jax 0.10.2: 0 / 0 at a low optimisation level, and at the usual
  one, without a sign, a first gradient of the demo that is 15 % off.
  """
  first, second = (jax.lax.index_in_dim(x, i, axis, keepdims=False) for i in (0, 1))
  return jnp.where((first > second) | jnp.isnan(first), first, second)


def interpolation_matrix(size: int, target: int, mode: Upsampling) -> np.ndarray:
  """Weights [target, size] of linear interpolation along one axis.

  Output i is read at i (size - 1) / (target - 1) with `align_corners` (the first and last samples
  stay where they are), at (i + 0.5) size / target - 0.5, held inside, with `half_pixel`, and at
  i size / target, held inside, with `tf1` (TensorFlow 1's default).
  """
  i = np.arange(target)
  if mode == "align_corners":
    place = i * ((size - 1) / max(target - 1, 1))
  elif mode == "tf1":
    place = np.minimum(i * (size / target), size - 1)
  else:
    place = np.clip((i + 0.5) * (size / target) - 0.5, 0, size - 1)
  return np.maximum(0, 1 - np.abs(place[:, None] - np.arange(size)))


def upsample(x: jax.Array, shape: Sequence[int], mode: Upsampling = "align_corners") -> jax.Array:
  """Trilinear interpolation of x [N, X, Y, Z, C] to the grid `shape`, of x's type.

  No gather forward, no scatter backward: along X, on CUDA along Y and Z too, shifted neighbours are
  added up; else a small matrix is applied. `align_corners` is the reference's convention (PyTorch
  before 0.4).
  """
  x = by_neighbours(x, 1, shape[0], mode)
  if x.shape[2:4] == tuple(shape[1:]):
    return x

  def over_y_and_z(interpolated: Callable[..., jax.Array], x: jax.Array) -> jax.Array:
    return interpolated(interpolated(x, 2, shape[1], mode), 3, shape[2], mode)

  return jax.lax.platform_dependent(
    x,
    cuda=functools.partial(over_y_and_z, by_neighbours),
    default=functools.partial(over_y_and_z, _by_matrix),
  )


def _by_matrix(x: jax.Array, axis: int, target: int, mode: Upsampling) -> jax.Array:
  """Interpolation along one axis by a matrix."""
  if x.shape[axis] == target:
    return x
  weights = jnp.asarray(interpolation_matrix(x.shape[axis], target, mode), x.dtype)
  return jnp.moveaxis(jnp.tensordot(weights, x, (1, axis)), 0, axis)


def by_neighbours(x: jax.Array, axis: int, target: int, mode: Upsampling) -> jax.Array:
  """Interpolation of x [N, X, Y, Z, C] along one axis as a sum of shifted copies.

  Output `factor` q + r lies less than one sample from sample q, in all modes and for every r, so
  it is a sum over q - 1, q and q + 1: devices that divide the axis need one plane of each neighbour
  and no more. Where the target is no multiple of the size a matrix is applied.
  """
  size = x.shape[axis]
  factor, rest = divmod(target, size)
  if rest:
    return _by_matrix(x, axis, target, mode)
  if factor == 1:
    return x
  table = np.pad(interpolation_matrix(size, target, mode), ((0, 0), (1, 1)))
  # weights[q, r, k]: of sample q - 1 + k in output `factor` q + r
  weights = np.stack([table[factor * q : factor * (q + 1), q : q + 3] for q in range(size)])
  weights = weights.reshape(*weights.shape, *(1,) * (x.ndim - axis - 1))
  near = [_shifted(x, axis, 1), x, _shifted(x, axis, -1)]
  planes = []
  for r in range(factor):
    used = [k for k in range(3) if weights[:, r, k].any()]
    terms = [jnp.asarray(weights[:, r, k], x.dtype) * near[k] for k in used]
    planes.append(functools.reduce(operator.add, terms))
  return jnp.stack(planes, axis + 1).reshape(*x.shape[:axis], target, *x.shape[axis + 1 :])


def _shifted(x: jax.Array, axis: int, by: int) -> jax.Array:
  """X [N, X, Y, Z, C] moved along an axis, zeros moved in."""
  edges = [(by, -by, 0) if i == axis else (0, 0, 0) for i in range(x.ndim)]
  return jax.lax.pad(x, jnp.zeros((), x.dtype), edges)
