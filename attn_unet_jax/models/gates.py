"""Additive attention gates, and the block that puts one or two of them on a skip connection.

Oktay et al. 2018 (arXiv:1804.03999), as released in `GridAttentionBlock3D`: its mode
`concatenation` is `sigmoid` here, `concatenation_debug` is `softplus`, and `concatenation_residual`
is `softmax`.
"""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn_unet_jax.models.layers import BatchNorm, Conv, ConvNormRelu
from attn_unet_jax.models.ops import conv as convolution
from attn_unet_jax.models.ops.resize import Upsampling, upsample

Variant = Literal["sigmoid", "softplus", "softmax"]


class AttentionGate(nn.Module):
  """An additive attention gate (Oktay et al. 2018, eq. 1-2).

      q     = psi . relu(theta * x + trilinear(phi g + b_phi)) + b_psi
      alpha = trilinear(sigmoid(q))
      out   = BN(W (alpha x) + b_W)

  theta is a 2x2x2 convolution of stride 2 without bias; phi, psi and W are 1x1x1. The inner
  channels are as many as x's.

  Attributes:
    gate_bias_init: start of b_psi; None is PyTorch's default, as in the released 3-D code. At 3
      the gates start nearly open. With `softmax` it cancels.
    variant: `sigmoid` as above; `softplus` replaces the ReLU by a softplus; `softmax` replaces the
      sigmoid by one softmax over all voxels of theta's grid: its coefficients sum to 1 there, so
      each is small.
    form: see `attn_unet_jax.models.ops.conv`.
    dtype: compute type.
    batch_axis: see `attn_unet_jax.models.layers.BatchNorm`.
    upsampling: see `attn_unet_jax.models.layers.upsample`.
  """

  gate_bias_init: float | None = None
  variant: Variant = "sigmoid"
  form: convolution.Form = "auto"
  dtype: Any = jnp.float32
  batch_axis: str | None = None
  upsampling: Upsampling = "align_corners"

  @nn.compact
  def __call__(self, x: jax.Array, g: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Weights skip features by the gating signal of the coarser level.

    Args:
      x: skip features [N, X, Y, Z, C].
      g: gating signal [N, X/2, Y/2, Z/2, K], or coarser by a whole factor.
      train: normalise by the batch's statistics.

    Returns:
      Gated features [N, X, Y, Z, C] and the coefficients alpha [N, X, Y, Z, 1] in (0, 1).

    Raises:
      ValueError: x's grid is not an even multiple of g's.
    """
    # theta halves x's grid, and phi is brought to that grid by a whole factor.
    if any(n % (2 * size) for n, size in zip(x.shape[1:4], g.shape[1:4], strict=True)):
      raise ValueError(
        f"skip grid {x.shape[1:4]}, gating grid {g.shape[1:4]}: it must be an even multiple of it"
      )
    common = {"form": self.form, "dtype": self.dtype}
    channels = x.shape[-1]
    # Without a bias, as released: phi's bias already serves the sum of both.
    theta = Conv(channels, 2, 2, "VALID", use_bias=False, name="theta", **common)(x)
    # On g's own grid, which is much coarser if one signal serves all levels: interpolation
    # commutes with a 1x1x1 convolution and keeps its bias.
    phi = Conv(channels, 1, name="phi", **common)(g)
    phi = upsample(phi, theta.shape[1:4], self.upsampling)
    start = self.gate_bias_init
    bias_init = None if start is None else nn.initializers.constant(start)
    activation = nn.softplus if self.variant == "softplus" else nn.relu
    q = Conv(1, 1, bias_init=bias_init, name="psi", **common)(activation(theta + phi))
    softmax = self.variant == "softmax"
    wide = jnp.promote_types(self.dtype, jnp.float32)  # for sums over voxels and over channels
    alpha = nn.softmax(q.astype(wide), axis=(1, 2, 3)) if softmax else nn.sigmoid(q)
    alpha = alpha.astype(self.dtype)
    # After the sigmoid, as released: interpolated coefficients stay between 0 and 1.
    alpha = upsample(alpha, x.shape[1:4], self.upsampling)
    out = Conv(channels, 1, name="output", **common)(alpha.astype(wide) * x)
    # No ReLU here, as released: `GatedSkip` has one after it has combined the gates.
    return BatchNorm(self.dtype, self.batch_axis, name="output_norm")(out, train), alpha


class GatedSkip(nn.Module):
  """A skip with one or several gates, combined to the skip's own channels.

      out = relu(BN(W [gate_1(x, g), ..., gate_n(x, g)] + b))

  Attributes:
    gates: how many gates; the reference has 1 (single) and 2 (multi).
    gate_bias_init: see `AttentionGate`.
    variant: see `AttentionGate`.
    form: see `attn_unet_jax.models.ops.conv`.
    dtype: compute type.
    batch_axis: see `attn_unet_jax.models.layers.BatchNorm`.
    upsampling: see `attn_unet_jax.models.layers.upsample`.
  """

  gates: int
  gate_bias_init: float | None = None
  variant: Variant = "sigmoid"
  form: convolution.Form = "auto"
  dtype: Any = jnp.float32
  batch_axis: str | None = None
  upsampling: Upsampling = "align_corners"

  @nn.compact
  def __call__(self, x: jax.Array, g: jax.Array, train: bool) -> tuple[jax.Array, list[jax.Array]]:
    """Returns the combined features [N, X, Y, Z, C], and the coefficients of every gate."""
    options = (self.form, self.dtype, self.batch_axis)
    start, variant = self.gate_bias_init, self.variant
    outputs, coefficients = [], []
    for i in range(self.gates):
      gate = AttentionGate(start, variant, *options, self.upsampling, name=f"gate{i}")
      gated, alpha = gate(x, g, train)
      outputs.append(gated)
      coefficients.append(alpha)
    combine = ConvNormRelu(x.shape[-1], 1, *options, name="combine")
    return combine(jnp.concatenate(outputs, -1), train), coefficients
