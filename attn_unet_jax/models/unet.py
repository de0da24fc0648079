"""The 3-D U-Net with deep supervision (`unet_ct_dsv` of the released code).

It is the backbone of the networks with gated skips: they override `skip`, and `gating_signal` where
the signal differs.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn_unet_jax.models.layers import (
  Conv,
  ConvBlock,
  kaiming_normal,
  remat_block,
  uniform_bias,
)
from attn_unet_jax.models.ops import conv as convolution
from attn_unet_jax.models.ops.resize import Upsampling, max_pool, upsample

Maps = dict[str, jax.Array]


class UNet(nn.Module):
  """A U-Net of five levels with trilinear upsampling, whose four decoder levels are fused.

  Attributes:
    num_classes: output channels K, background included.
    feature_scale: channels are int(64 / feature_scale) ... int(1024 / feature_scale).
    conv: form of the convolutions, see `attn_unet_jax.models.ops.conv`.
    dtype: compute type, float32 or bfloat16; parameters, statistics and logits are float32.
    batch_axis: see `attn_unet_jax.models.layers.BatchNorm`.
    remat: so many of the finest levels compute their blocks again in the backward pass.
    upsampling: how samples of two grids lie to each other, see `attn_unet_jax.models.layers`:
      `align_corners`, as published; `half_pixel`, as the released code has it in PyTorch since 0.4.
  """

  num_classes: int = 2
  feature_scale: float = 4.0
  conv: convolution.Form = "auto"
  dtype: Any = jnp.float32
  batch_axis: str | None = None
  remat: int = 0
  upsampling: Upsampling = "align_corners"

  @property
  def filters(self) -> tuple[int, ...]:
    """The channels of the five levels, finest first."""
    # Rounded down, as released: at 3.82 the paper's larger U-Net has 16, 33, 67, 134, 268.
    return tuple(int(width / self.feature_scale) for width in (64, 128, 256, 512, 1024))

  @property
  def patch_multiple(self) -> tuple[int, int, int]:
    """The unit of patch sizes, in voxels: four poolings halve the grid."""
    return (16, 16, 16)

  @property
  def kernel_size(self) -> int:
    """The size of the widest convolution, in voxels."""
    return 3

  @property
  def answer_depends_on(self) -> str:
    """What the answer at a voxel depends on, see `attn_unet_jax.models`."""
    return "borders"

  @property
  def output_margin(self) -> tuple[int, int, int]:
    """The voxels by which the output is smaller than the input, on each side of each axis."""
    return (0, 0, 0)

  def gating_signal(self, x: jax.Array, before: jax.Array | None, train: bool) -> jax.Array:
    """Returns the gating signal of the next finer level: here the features below it.

    Args:
      x: decoder features one level below, the bottleneck's to begin with [N, X/2, Y/2, Z/2, K].
      before: the gating signal of the level below; None at the coarsest.
      train: normalise by the batch's statistics.
    """
    del before, train
    return x

  def skip(
    self, level: int, encoded: list[jax.Array], signal: jax.Array, train: bool
  ) -> tuple[jax.Array, Maps]:
    """Returns what the decoder gets of the encoder at a level: here that level's features.

    Args:
      level: 1 (finest) to 4.
      encoded: the encoder's features, finest first [N, X/2^l, Y/2^l, Z/2^l, C_l], l = 0..3.
      signal: the level's gating signal.
      train: normalise by the batch's statistics.

    Returns:
      [N, X, Y, Z, C] on the level's grid, and coefficients by name, each [N, X, Y, Z, 1 or C].
    """
    del signal, train
    return encoded[level - 1], {}

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, dict[str, Maps]]:
    """Segments a batch of patches.

    Args:
      x: normalised images [N, X, Y, Z, 1]; X, Y and Z are multiples of `patch_multiple`.
      train: normalise by the batch's statistics, and update the running ones.

    Returns:
      Logits [N, X, Y, Z, K] in float32, and `{'gates': {name: coefficients [N, X, Y, Z, 1]}}`.

    Raises:
      ValueError: a patch size that four poolings do not divide.
    """
    if any(size % unit for size, unit in zip(x.shape[1:4], self.patch_multiple, strict=True)):
      raise ValueError(f"patch {x.shape[1:4]}: each size must be a multiple of 16")
    options = {"form": self.conv, "dtype": self.dtype, "batch_axis": self.batch_axis}

    def block(level: int, name: str) -> nn.Module:
      """Makes the block of a level."""
      kind = remat_block(ConvBlock, level, self.remat)
      return kind(self.filters[level - 1], **options, name=name)

    encoded: list[jax.Array] = []
    for level in (1, 2, 3, 4):
      x = block(level, f"encoder{level}")(x, train)
      encoded.append(x)
      x = max_pool(x)
    x = block(5, "bottleneck")(x, train)
    decoded: list[jax.Array] = []
    gates: Maps = {}
    signal = None
    for level in (4, 3, 2, 1):
      signal = self.gating_signal(x, signal, train)
      skip, coefficients = self.skip(level, encoded, signal, train)
      gates.update(coefficients)
      # Interpolated, without a transposed convolution, and the skip first: both as released,
      # so that converted weights meet the channels they were trained on.
      x = jnp.concatenate([skip, upsample(x, skip.shape[1:4], self.upsampling)], -1)
      x = block(level, f"decoder{level}")(x, train)
      decoded.insert(0, x)  # finest first, as `DeepSupervision` reads them
    head = DeepSupervision(
      self.num_classes, self.conv, self.dtype, self.upsampling, name="deep_supervision"
    )
    return head(decoded), {"gates": gates}


class DeepSupervision(nn.Module):
  """A head that fuses the logits of every decoder level, under one loss.

  logits = W [u_1, ..., u_4] + b,   u_l = trilinear(W_l x_l + b_l)
  """

  num_classes: int
  form: convolution.Form = "auto"
  dtype: Any = jnp.float32
  upsampling: Upsampling = "align_corners"

  @nn.compact
  def __call__(self, levels: list[jax.Array]) -> jax.Array:
    """Joins features [N, X/2^l, Y/2^l, Z/2^l, C_l], finest first, to logits [N, X, Y, Z, K]."""
    classes, fan_in = self.num_classes, self.num_classes * len(levels)
    kernel = self.param("kernel", kaiming_normal, (fan_in, classes), jnp.float32)
    logits = self.param("bias", uniform_bias(fan_in), (classes,), jnp.float32)
    # The levels are summed in float32: the logits are float32 for every compute type.
    wide = jnp.promote_types(self.dtype, jnp.float32)
    # Resizing is linear and keeps constants, so it commutes with W: each level's share of W is
    # applied on its own small grid, and the concatenation is never made.
    for i, (x, share) in enumerate(zip(levels, jnp.split(kernel, len(levels)), strict=True), 1):
      scores = Conv(classes, 1, form=self.form, dtype=self.dtype, name=f"level{i}")(x)
      shape = levels[0].shape[1:4]
      logits = logits + upsample(scores.astype(wide) @ share, shape, self.upsampling)
    return logits
