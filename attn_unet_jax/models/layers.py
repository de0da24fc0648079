"""The layers that the networks share: convolution, normalisation, blocks, resizing.

Initialisation is that of the released code (ozan-oktay/Attention-Gated-Networks): kaiming-normal
kernels, PyTorch's default biases, batch-norm scales around one. Parameters and batch statistics are
float32 for every compute type.
"""

import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn_unet_jax.models.initial_values import draw_normal, draw_uniform, scaled_normal
from attn_unet_jax.models.ops import conv as convolution

# nn.initializers.kaiming_normal truncates; that of the released code does not.
kaiming_normal = scaled_normal(2.0)


def uniform_bias(fan_in: int) -> nn.initializers.Initializer:
  """Makes PyTorch's default initialiser of a bias: U(-1/sqrt(fan_in), 1/sqrt(fan_in))."""
  bound = 1 / math.sqrt(fan_in)

  def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Draws the first values of a bias."""
    return draw_uniform(key, shape, dtype, -bound, bound)

  return init


def scale_around_one(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
  """Draws the released code's initial batch-norm scale, N(1, 0.02)."""
  return draw_normal(key, shape, dtype, 1, 0.02)


class Conv(nn.Module):
  """A 3-D convolution, [N, X, Y, Z, C] to [N, X', Y', Z', features].

  Attributes:
    features: output channels.
    size: kernel size on every axis.
    stride: step on every axis.
    padding: `SAME` or `VALID`.
    use_bias: add a bias per output channel.
    bias_init: the bias's initialiser; None is PyTorch's default.
    kernel_init: the kernel's initialiser.
    form: see `attn_unet_jax.models.ops.conv`.
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
    """Convolves x [N, X, Y, Z, C]."""
    shape = (self.size,) * 3 + (x.shape[-1], self.features)
    # Kept in float32 and cast at each use: bfloat16 has 8 significant bits, in which small
    # updates would be lost.
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
    # PyTorch's bound for a bias takes the kernel's fan-in: its taps times the input channels.
    bias_init = self.bias_init or uniform_bias(math.prod(shape[:-1]))
    return add_bias(y, self.param("bias", bias_init, (self.features,), jnp.float32))


def add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
  """Adds a float32 bias [C] to y [..., C]. Returns y's type."""
  # The sum is in float32, so that the bias's gradient is too: a sum over all voxels, which in
  # bfloat16 stops growing at a few hundred times its terms.
  return (y + bias).astype(y.dtype)


class BatchNorm(nn.Module):
  """A batch normalisation over N, X, Y and Z, with statistics in float32.

  Momentum 0.9 on the running statistics is PyTorch's 0.1; epsilon 1e-5.

  Attributes:
    dtype: compute type.
    batch_axis: name of the axis, of `jax.pmap` or `jax.shard_map`, over which the batch is divided;
      the statistics are then those of the whole batch. None: those of the batch at hand.
  """

  dtype: Any = jnp.float32
  batch_axis: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, kept: jax.Array | None = None) -> jax.Array:
    """Normalises by the batch's statistics if `train`, else by the running ones.

    Args:
      x: [N, X, Y, Z, C].
      train: normalises by the batch's statistics and updates the running ones.
      kept: channels whose running statistics are updated, booleans [C]; None: all.
    """
    norm = nn.BatchNorm(
      use_running_average=not train,
      momentum=0.9,
      epsilon=1e-5,
      dtype=self.dtype,
      scale_init=scale_around_one,
      # Over all devices: with statistics of its own part each would train another network.
      axis_name=self.batch_axis,
    )
    if kept is None:
      result: jax.Array = norm(x)
      return result
    names = ("mean", "var")
    # `nn.BatchNorm` cannot leave channels out: the old values of the others are put back.
    before: dict[str, Any] = {name: norm.get_variable("batch_stats", name) for name in names}
    y = norm(x)
    for name in names:
      after: Any = norm.get_variable("batch_stats", name)
      norm.put_variable("batch_stats", name, jnp.where(kept, after, before[name]))
    result = y
    return result


class ConvNormRelu(nn.Module):
  """A convolution with bias, batch normalisation and ReLU."""

  features: int
  size: int = 3
  form: convolution.Form = "auto"
  dtype: Any = jnp.float32
  batch_axis: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, X, Y, Z, C] to [N, X, Y, Z, features]."""
    # Batch normalisation makes this bias redundant. The released network has it, and its
    # weights and its number of parameters are to fit.
    x = Conv(self.features, self.size, form=self.form, dtype=self.dtype)(x)
    return nn.relu(BatchNorm(self.dtype, self.batch_axis)(x, train))


class ConvBlock(nn.Module):
  """A pair of 3x3x3 convolutions, each with batch normalisation and ReLU."""

  features: int
  form: convolution.Form = "auto"
  dtype: Any = jnp.float32
  batch_axis: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, X, Y, Z, C] to [N, X, Y, Z, features]."""
    options = {"form": self.form, "dtype": self.dtype, "batch_axis": self.batch_axis}
    for _ in range(2):
      x = ConvNormRelu(self.features, **options)(x, train)
    return x


def remat_block(
  block: type[nn.Module], level: int, levels: int, *, takes_train: bool = True
) -> type[nn.Module]:
  """Wraps a block in `nn.remat` if its level is one of the finest `levels`.

  The backward pass then keeps only the input of the block and computes its inside again. The call
  of the block is `(x, train)`, or `(x)` without `takes_train`.
  """
  if level > levels:
    return block
  # `train` decides what is traced, so it is static; argument 0 is the module.
  return nn.remat(block, static_argnums=(2,) if takes_train else ())
