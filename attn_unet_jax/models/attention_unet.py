"""Attention U-Net: Oktay et al. 2018, arXiv:1804.03999; Schlemper et al. 2019, arXiv:1808.08114."""

from typing import Literal

import jax

from attn_unet_jax.models.gates import GatedSkip, Variant
from attn_unet_jax.models.layers import ConvNormRelu
from attn_unet_jax.models.unet import Maps, UNet

Gating = Literal["progressive", "shared"]


class AttentionUNet(UNet):
  """The U-Net with attention gates on the skips of levels 4, 3 and 2.

  The gating signal of level 4 is the bottleneck after a 1x1x1 convolution with batch normalisation
  and ReLU. With `progressive` gating a finer level's signal is the decoder's output one
  level below; with `shared`, as first released, the bottleneck's signal, at half its channels,
  serves all levels. The gates' coefficients leave the network as `level4/0`, `level4/1`,
  `level3/0`, ...

  Attributes:
    gates: gates per skip, 2 (multi, the reference's best) or 1 (single).
    gating: `progressive` or `shared`.
    gate_finest: whether the skip of level 1 is gated too.
    gate: see `variant` of `attn_unet_jax.models.gates.AttentionGate`.
    gate_bias_init: see there.
  """

  # The authors' configs for Pancreas-CT name this variant: two gates, progressive gating.
  gates: int = 2
  gating: Gating = "progressive"
  # The released network gives the finest skip to the decoder as it is.
  gate_finest: bool = False
  gate: Variant = "sigmoid"
  # The paper lets a new gate pass everything. None is what the released 3-D code does.
  gate_bias_init: float | None = None

  @property
  def answer_depends_on(self) -> str:
    """What the answer at a voxel depends on, see `attn_unet_jax.models`."""
    # The coefficients of a softmax sum to 1 over the window.
    return "window" if self.gate == "softmax" else "borders"

  def gating_signal(self, x: jax.Array, before: jax.Array | None, train: bool) -> jax.Array:
    """Returns the bottleneck's signal, or the decoder's features one level below."""
    shared = self.gating == "shared"
    if before is not None:
      return before if shared else x
    # As released: a shared signal has half the bottleneck's channels, 128 of 256.
    channels = self.filters[3 if shared else 4]
    signal = ConvNormRelu(channels, 1, self.conv, self.dtype, self.batch_axis, name="gating")
    return signal(x, train)

  def skip(
    self, level: int, encoded: list[jax.Array], signal: jax.Array, train: bool
  ) -> tuple[jax.Array, Maps]:
    """Returns the gated features of a level, and its gates' coefficients [N, X, Y, Z, 1]."""
    x = encoded[level - 1]
    if level == 1 and not self.gate_finest:
      return x, {}
    options = (self.gate_bias_init, self.gate, self.conv, self.dtype, self.batch_axis)
    block = GatedSkip(self.gates, *options, self.upsampling, name=f"skip{level}")
    features, coefficients = block(x, signal, train)
    return features, {f"level{level}/{i}": alpha for i, alpha in enumerate(coefficients)}
