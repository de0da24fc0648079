"""Attention U-Net: Oktay et al. 2018, arXiv:1804.03999; Schlemper et al. 2019, arXiv:1808.08114."""

import jax

from attn_unet_jax.models.gates import GatedSkip
from attn_unet_jax.models.layers import ConvNormRelu
from attn_unet_jax.models.unet import Maps, UNet


class AttentionUNet(UNet):
  """The U-Net with attention gates on the skips of levels 4, 3 and 2, progressively gated.

  A level's gating signal is the decoder's output one level below; at level 4, where that is the
  bottleneck, it passes a 1x1x1 convolution with batch normalisation and ReLU first. The gates'
  coefficients leave the network as `level4/0`, `level4/1`, `level3/0`, ...

  Attributes:
    gates: gates per skip, 2 (multi, the reference's best) or 1 (single).
    gate_bias_init: see `attn_unet_jax.models.gates.AttentionGate`.
  """

  gates: int = 2
  gate_bias_init: float | None = None

  def skip(
    self, level: int, x: jax.Array, coarse: jax.Array, train: bool
  ) -> tuple[jax.Array, Maps]:
    """Gated features of a level, and its gates' coefficients; level 1 is not gated."""
    if level == 1:
      return x, {}
    options = (self.conv, self.dtype, self.batch_axis)
    if level == 4:
      gating = ConvNormRelu(coarse.shape[-1], 1, *options, name="gating")
      coarse = gating(coarse, train)
    gated = GatedSkip(self.gates, self.gate_bias_init, *options, name=f"skip{level}")
    features, coefficients = gated(x, coarse, train)
    return features, {f"level{level}/{i}": alpha for i, alpha in enumerate(coefficients)}
