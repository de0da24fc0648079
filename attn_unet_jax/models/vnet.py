"""V-Net: Milletari et al. 2016, arXiv:1606.04797, as drawn in the paper and as released."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn_unet_jax.models.initial_values import mean_fan, scaled_normal
from attn_unet_jax.models.layers import add_bias, remat_block
from attn_unet_jax.models.ops import conv as convolution
from attn_unet_jax.models.upconv import UpConv

# Caffe's MSRA filler with the average of fan-in and fan-out.
msra = scaled_normal(2.0, mean_fan)


class VNet(nn.Module):
  """A network of five residual levels, 5x5x5 convolutions with PReLU, without normalisation.

  It has no pooling: 2x2x2 convolutions of stride 2 lead down, their transposes up. A level adds
  its input to its last convolution: on the way up that is the concatenation with the skip, at the
  finest level the image, repeated over the channels.

  Attributes:
    num_classes: output channels K, background included.
    feature_scale: channels are int(16 / feature_scale) ... int(256 / feature_scale), 1 at least.
    left: convolutions of the levels on the way down, finest first, the deepest last.
    right: convolutions of the levels on the way up, coarsest first.
    conv: form of the convolutions, see `attn_unet_jax.models.ops.conv`.
    dtype: compute type, float32 or bfloat16; parameters and logits are float32.
    remat: so many of the finest levels compute their blocks again in the backward pass.
  """

  num_classes: int = 2
  feature_scale: float = 1.0
  # These numbers give the paper's receptive fields: 5, 22, 72, 172, 372 voxels on the way down.
  left: tuple[int, int, int, int, int] = (1, 2, 3, 3, 3)
  right: tuple[int, int, int, int] = (3, 3, 2, 1)
  conv: convolution.Form = "auto"
  dtype: Any = jnp.float32
  remat: int = 0

  @property
  def filters(self) -> tuple[int, ...]:
    """The channels of the five levels on the way down, finest first."""
    return tuple(max(1, int(width / self.feature_scale)) for width in (16, 32, 64, 128, 256))

  @property
  def patch_multiple(self) -> tuple[int, int, int]:
    """The unit of patch sizes, in voxels: the grid is halved four times."""
    return (16, 16, 16)

  @property
  def kernel_size(self) -> int:
    """The size of the widest convolution, in voxels."""
    return 5

  @property
  def answer_depends_on(self) -> str:
    """What the answer at a voxel depends on, see `attn_unet_jax.models`."""
    return "borders"

  @property
  def output_margin(self) -> tuple[int, int, int]:
    """The voxels by which the output is smaller than the input, on each side of each axis."""
    return (0, 0, 0)

  def head(self, x: jax.Array) -> jax.Array:
    """Computes the logits [N, X, Y, Z, K] of the finest features by a 1x1x1 convolution."""
    return MsraConv(self.num_classes, 1, form=self.conv, dtype=self.dtype, name="head")(x)

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, dict[str, Any]]:
    """Segments a batch of patches.

    Args:
      x: normalised images [N, X, Y, Z, 1]; X, Y and Z are multiples of `patch_multiple`.
      train: not read; nothing here differs in training.

    Returns:
      Logits [N, X, Y, Z, K] in float32, and `{'gates': {}}`.

    Raises:
      ValueError: a patch size that cannot be halved four times.
    """
    del train
    if any(size % unit for size, unit in zip(x.shape[1:4], self.patch_multiple, strict=True)):
      raise ValueError(f"patch {x.shape[1:4]}: each size must be a multiple of 16")
    options = {"form": self.conv, "dtype": self.dtype}
    skips: list[jax.Array] = []
    for level, (width, convolutions) in enumerate(zip(self.filters, self.left, strict=True), 1):
      if skips:
        x = MsraConv(width, 2, 2, **options, name=f"down{level}")(x)
        x = PReLU(self.dtype, name=f"down{level}_prelu")(x)
      residual = remat_block(_Residual, level, self.remat, takes_train=False)
      x = residual(width, convolutions, **options, name=f"left{level}")(x)
      skips.append(x)
    for level, convolutions in zip((4, 3, 2, 1), self.right, strict=True):
      skip = skips[level - 1]
      x = UpConv(skip.shape[-1], kernel_init=msra, **options, name=f"up{level}")(x)
      x = PReLU(self.dtype, name=f"up{level}_prelu")(x)
      # The skip comes second, as released; in the U-Net it comes first.
      x = jnp.concatenate([x, skip], -1)
      residual = remat_block(_Residual, level, self.remat, takes_train=False)
      x = residual(x.shape[-1], convolutions, **options, name=f"right{level}")(x)
    return self.head(x).astype(jnp.promote_types(self.dtype, jnp.float32)), {"gates": {}}


class VNetCaffe(VNet):
  """The V-Net of the released code: fewer convolutions, and a head that sees 5x5x5 voxels."""

  left: tuple[int, int, int, int, int] = (1, 1, 2, 3, 3)
  right: tuple[int, int, int, int] = (3, 2, 1, 1)

  def head(self, x: jax.Array) -> jax.Array:
    """Computes the logits by a 5x5x5 convolution to K channels, PReLU and a 1x1x1 convolution."""
    x = MsraConv(self.num_classes, 5, form=self.conv, dtype=self.dtype, name="head_wide")(x)
    return super().head(PReLU(self.dtype, name="head_prelu")(x))


class MsraConv(nn.Module):
  """A convolution [N, X, Y, Z, C] to [N, X', Y', Z', features], initialised by `msra`, bias 0."""

  features: int
  size: int
  stride: int = 1
  form: convolution.Form = "auto"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Convolves x, padded so that only the stride shrinks the grid."""
    shape = (self.size,) * 3 + (x.shape[-1], self.features)
    kernel = self.param("kernel", msra, shape, jnp.float32).astype(self.dtype)
    strides = (self.stride,) * 3
    y = convolution.conv3d(x.astype(self.dtype), kernel, strides=strides, form=self.form)
    bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
    return add_bias(y, bias)


class PReLU(nn.Module):
  """The activation max(x, 0) + a min(x, 0), with a slope a per channel that starts at 0.25."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps [..., C] to [..., C]."""
    # 0.25 is the default of Caffe, in which the network was released.
    slope = self.param("slope", nn.initializers.constant(0.25), x.shape[-1:], jnp.float32)
    # In float32: the slope's gradient is a sum over all voxels, like that of a bias.
    return jnp.where(x >= 0, x, (slope * x).astype(self.dtype))


class _Residual(nn.Module):
  """A level of convolutions, whose input is added to the last one before the activation."""

  features: int
  convolutions: int
  form: convolution.Form = "auto"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = x
    for i in range(self.convolutions):
      y = MsraConv(self.features, 5, form=self.form, dtype=self.dtype, name=f"conv{i}")(y)
      if i == self.convolutions - 1:
        y = y + x  # an image of one channel is repeated over all
      y = PReLU(self.dtype, name=f"prelu{i}")(y)
    return y
