"""U-Net with joint spatial and channel attention on its skips, and skips from every level.

No single publication is meant. The formula is alpha = sigmoid(W [x, g] + b), linear attention with
a gating signal, taken once per voxel (where) and once per channel (which), as in the concurrent
scSE of Roy et al. 2018 (arXiv:1803.02579); the parallel skips follow UNet 3+ (arXiv:2004.08790).
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn_unet_jax.models.initial_values import scaled_normal
from attn_unet_jax.models.layers import Conv, ConvNormRelu
from attn_unet_jax.models.ops import conv as convolution
from attn_unet_jax.models.ops.resize import Upsampling, max_pool, upsample
from attn_unet_jax.models.unet import Maps, UNet

Joining = Literal["product", "max", "mean"]
ParallelSkips = Literal["levels", "own"]

_BIAS = 2.0  # of both attentions: sigmoid(2) = 0.88, so all starts nearly open
_VOXELS = (1, 2, 3)
# A tenth of the kaiming-normal deviation: a hundredth of its variance.
small_normal = scaled_normal(0.02)


class DualAttentionUNet(UNet):
  """The U-Net whose skips of levels 4, 3 and 2 are weighted, and joined by those of all levels.

  A level's gating signal is the decoder's output one level below, at level 4 the bottleneck's. Its
  decoder sees [attended skip, parallel skips, upsampled decoder]. The coefficients leave the
  network as `level4`, `level3`, ..., [N, X, Y, Z, C].

  Attributes:
    attention_joining: how the spatial and the channel coefficients become one, see `DualAttention`.
    channel_reduction: see there.
    parallel_skips: `levels`: of every other encoder level, brought to this grid (by max pooling or
      trilinear), a 1x1x1 convolution to the finest level's channels; `own`: this level's features
      as they are, which is cheaper.
    gate_finest: whether the skip of level 1 is treated so too.
  """

  attention_joining: Joining = "product"
  channel_reduction: int = 0
  parallel_skips: ParallelSkips = "levels"
  gate_finest: bool = False

  @property
  def answer_depends_on(self) -> str:
    """What the answer at a voxel depends on, see `attn_unet_jax.models`."""
    # The attention over channels takes the mean over the window.
    return "window"

  def skip(
    self, level: int, encoded: list[jax.Array], signal: jax.Array, train: bool
  ) -> tuple[jax.Array, Maps]:
    """Returns the attended features beside the parallel skips, and the coefficients."""
    x = encoded[level - 1]
    if level == 1 and not self.gate_finest:
      return x, {}
    options = (self.conv, self.dtype, self.batch_axis, self.upsampling)
    attention = DualAttention(
      self.attention_joining, self.channel_reduction, *options, name=f"skip{level}"
    )
    attended, alpha = attention(x, signal, train)
    parallel = [x] if self.parallel_skips == "own" else self._bring_other_levels(level, encoded)
    return jnp.concatenate([attended, *parallel], -1), {f"level{level}": alpha}

  def _bring_other_levels(self, level: int, encoded: list[jax.Array]) -> list[jax.Array]:
    """Brings the features of all other levels to the grid of this one."""
    found = []
    for other, features in enumerate(encoded, 1):
      if other == level:
        continue
      for _ in range(level - other):
        features = max_pool(features)
      name = f"parallel{level}_{other}"
      narrow = Conv(self.filters[0], 1, form=self.conv, dtype=self.dtype, name=name)(features)
      # On its own grid, if that is coarser: a 1x1x1 convolution commutes with interpolation.
      found.append(upsample(narrow, encoded[level - 1].shape[1:4], self.upsampling))
    return found


class DualAttention(nn.Module):
  """A gate of spatial and channel attention, with one gating signal.

      a_s   = sigmoid(w_s . [x, trilinear(g)] + b_s)          one a voxel
      a_c   = sigmoid(W_c [mean(x), mean(g)] + b_c)           one a channel, means over the voxels
      alpha = a_s a_c, or their max or mean;   out = relu(BN(W (alpha x) + b))

  Weights start at a tenth of kaiming-normal and b_s = b_c = 2, so that all starts nearly open.

  Attributes:
    joining: `product`, `max` or `mean`.
    channel_reduction: r > 0 puts a layer with ReLU of C / r channels before W_c; 0: none.
    form: see `attn_unet_jax.models.ops.conv`.
    dtype: compute type.
    batch_axis: see `attn_unet_jax.models.layers.BatchNorm`.
    upsampling: see `attn_unet_jax.models.layers.upsample`.
  """

  joining: Joining = "product"
  channel_reduction: int = 0
  form: convolution.Form = "auto"
  dtype: Any = jnp.float32
  batch_axis: str | None = None
  upsampling: Upsampling = "align_corners"

  @nn.compact
  def __call__(self, x: jax.Array, g: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Weights skip features by the gating signal of the coarser level.

    Args:
      x: skip features [N, X, Y, Z, C].
      g: gating signal [N, X/2, Y/2, Z/2, K].
      train: normalise by the batch's statistics.

    Returns:
      Attended features and the coefficients alpha in (0, 1), both [N, X, Y, Z, C].
    """
    spatial, channel = self._spatial_attention(x, g), self._channel_attention(x, g)
    if self.joining == "product":
      alpha = spatial * channel
    elif self.joining == "max":
      alpha = jnp.maximum(spatial, channel)
    else:
      alpha = (spatial + channel) / 2
    options = (self.form, self.dtype, self.batch_axis)
    return ConvNormRelu(x.shape[-1], 1, *options, name="output")(alpha * x, train), alpha

  def _spatial_attention(self, x: jax.Array, g: jax.Array) -> jax.Array:
    """Computes a coefficient per voxel, [N, X, Y, Z, 1]."""
    # The share of g is computed on its own, coarser grid: interpolation commutes with the product.
    kernel, bias = self._linear_parameters("spatial", x.shape[-1] + g.shape[-1], 1)
    own, gating = jnp.split(kernel, [x.shape[-1]])
    return nn.sigmoid(x @ own + upsample(g @ gating, x.shape[1:4], self.upsampling) + bias)

  def _channel_attention(self, x: jax.Array, g: jax.Array) -> jax.Array:
    """Computes a coefficient per channel, [N, 1, 1, 1, C]."""
    channels = x.shape[-1]
    pooled = jnp.concatenate([jnp.mean(a, _VOXELS, keepdims=True) for a in (x, g)], -1)
    if self.channel_reduction:
      # The bias starts at 0 here: the last layer alone decides how far the gate is open.
      narrow = max(1, channels // self.channel_reduction)
      kernel, bias = self._linear_parameters("channel_reduced", pooled.shape[-1], narrow, bias=0.0)
      pooled = nn.relu(pooled @ kernel + bias)
    kernel, bias = self._linear_parameters("channel", pooled.shape[-1], channels)
    return nn.sigmoid(pooled @ kernel + bias)

  def _linear_parameters(
    self, name: str, fan_in: int, features: int, bias: float = _BIAS
  ) -> tuple[jax.Array, jax.Array]:
    """Creates a kernel [fan_in, features] in the compute type and a float32 bias [features]."""
    # The bias stays float32, and so do the coefficients that it is added to: their gradients are
    # sums over voxels and over channels.
    kernel = self.param(f"{name}_kernel", small_normal, (fan_in, features), jnp.float32)
    start = nn.initializers.constant(bias)
    offset = self.param(f"{name}_bias", start, (features,), jnp.float32)
    return kernel.astype(self.dtype), offset
