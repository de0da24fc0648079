"""Additive attention gates, and the blocks that put one or two of them on a skip connection.

Oktay et al. 2018 (arXiv:1804.03999), as released in `GridAttentionBlock3D`, mode `concatenation`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn_unet_jax.models import conv as convolution
from attn_unet_jax.models.layers import BatchNorm, Conv, ConvNormRelu, upsample


class AttentionGate(nn.Module):
  """One additive attention gate (Oktay et al. 2018, eq. 1-2).

      q     = psi . relu(theta * x + phi g + b_phi) + b_psi
      alpha = trilinear(sigmoid(q))
      out   = BN(W (alpha x) + b_W)

  theta is a 2x2x2 convolution of stride 2 without bias; phi, psi and W are 1x1x1. The inner
  channels are as many as x's.

  Attributes:
    gate_bias_init: start of b_psi; None is PyTorch's default, as in the released 3-D code. At 3
      the gates start nearly open.
    form: see `attn_unet_jax.models.conv`.
    dtype: compute type.
    batch_axis: see `attn_unet_jax.models.layers.BatchNorm`.
  """

  gate_bias_init: float | None = None
  form: convolution.Form = "auto"
  dtype: Any = jnp.float32
  batch_axis: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, g: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
    """Weight skip features by what the coarser level says.

    Args:
      x: skip features [N, X, Y, Z, C].
      g: gating signal [N, X/2, Y/2, Z/2, K].
      train: normalise by the batch's statistics.

    Returns:
      Gated features [N, X, Y, Z, C] and the coefficients alpha [N, X, Y, Z, 1] in (0, 1).

    Raises:
      ValueError: x's grid is not twice g's.
    """
    if x.shape[1:4] != tuple(2 * size for size in g.shape[1:4]):
      raise ValueError(f"skip grid {x.shape[1:4]}, gating grid {g.shape[1:4]}: it must be twice it")
    common = {"form": self.form, "dtype": self.dtype}
    channels = x.shape[-1]
    theta = Conv(channels, 2, 2, "VALID", use_bias=False, name="theta", **common)(x)
    phi = Conv(channels, 1, name="phi", **common)(g)
    start = self.gate_bias_init
    bias_init = None if start is None else nn.initializers.constant(start)
    q = Conv(1, 1, bias_init=bias_init, name="psi", **common)(nn.relu(theta + phi))
    alpha = upsample(nn.sigmoid(q), x.shape[1:4])
    out = Conv(channels, 1, name="output", **common)(alpha * x)
    return BatchNorm(self.dtype, self.batch_axis, name="output_norm")(out, train), alpha


class GatedSkip(nn.Module):
  """One or several gates on the same skip, combined to the skip's own channels.

      out = relu(BN(W [gate_1(x, g), ..., gate_n(x, g)] + b))

  Attributes:
    gates: how many gates; the reference has 1 (single) and 2 (multi).
    gate_bias_init: see `AttentionGate`.
    form: see `attn_unet_jax.models.conv`.
    dtype: compute type.
    batch_axis: see `attn_unet_jax.models.layers.BatchNorm`.
  """

  gates: int
  gate_bias_init: float | None = None
  form: convolution.Form = "auto"
  dtype: Any = jnp.float32
  batch_axis: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, g: jax.Array, train: bool) -> tuple[jax.Array, list[jax.Array]]:
    """As `AttentionGate`, with the coefficients of every gate in a list."""
    options = (self.form, self.dtype, self.batch_axis)
    outputs, coefficients = [], []
    for i in range(self.gates):
      gate = AttentionGate(self.gate_bias_init, *options, name=f"gate{i}")
      gated, alpha = gate(x, g, train)
      outputs.append(gated)
      coefficients.append(alpha)
    combine = ConvNormRelu(x.shape[-1], 1, *options, name="combine")
    return combine(jnp.concatenate(outputs, -1), train), coefficients
