"""The networks by name, and what can be set about each. Loads no JAX.

A new network is a Flax module in a file of its own, its options and a line of `NETWORKS` here. One
that lies outside the package is named by its import path, `my_package.my_module:MyNet`: the fields
of the module are its options then.
"""

from dataclasses import dataclass
from typing import ClassVar

from attn_unet_jax.runtime.options import NOT_NEGATIVE, POSITIVE, Options, Rule, one_of, option

_FEATURE_SCALE = "Filters are int(published widths / feature_scale), 1 at least."
_AT_MOST_64 = Rule("at most 64, which leaves one channel", lambda value: value <= 64)
_AT_MOST_5 = Rule("at most 5, the levels of the deepest networks", lambda value: value <= 5)
_STACKS = "tuples of whole numbers above 0, one a stack"

# Options that say how a network is computed, not which one: they stay if another one is chosen.
COMPUTING = ("conv", "dtype", "remat")


def _are_stacks(rates: tuple[object, ...]) -> bool:
  """Returns whether `rates` is as `_STACKS` says."""
  fits = all(isinstance(stack, tuple) and stack for stack in rates)
  return fits and all(
    isinstance(rate, int) and rate > 0
    for stack in rates
    if isinstance(stack, tuple)
    for rate in stack
  )


@dataclass(frozen=True)
class NetworkOptions(Options):
  """The options that every network of the package has.

  Attributes:
    module: import path of the Flax module.
  """

  # As text, so that listing the options loads no JAX.
  module: ClassVar[str] = ""

  name: str = option("", "The network, or my_package.my_module:MyNet for one of your own.")
  feature_scale: float = option(1.0, _FEATURE_SCALE, POSITIVE, _AT_MOST_64)
  remat: int = option(
    0,
    "Finest levels that are computed again in the backward pass: less GPU or TPU memory.",
    NOT_NEGATIVE, _AT_MOST_5,
  )  # fmt: skip
  dtype: str = option(
    "float32",
    "Type of activations; parameters and losses stay float32.",
    one_of("float32", "bfloat16"),
  )


@dataclass(frozen=True)
class ConvNetworkOptions(NetworkOptions):
  """The options of networks whose convolutions have several forms."""

  conv: str = option(
    "auto",
    "Form of the 3-D convolution; auto: by platform and shape; onednn: needs make install-native.",
    one_of("auto", "native", "onednn", "packed", "planes", "winograd"),
  )


@dataclass(frozen=True)
class UNetOptions(ConvNetworkOptions):
  """The U-Net that the paper compares with."""

  module: ClassVar[str] = "attn_unet_jax.models.unet:UNet"

  name: str = option("unet", "The network.")
  # The paper's networks are 16 to 256 channels wide, a quarter of 64 to 1024.
  feature_scale: float = option(4.0, _FEATURE_SCALE, POSITIVE, _AT_MOST_64)
  # PyTorch changed its positions in version 0.4. The paper's code pins 0.1.12.
  upsampling: str = option(
    "align_corners",
    "Trilinear upsampling: align_corners as PyTorch before 0.4, or half_pixel.",
    one_of("align_corners", "half_pixel"),
  )


@dataclass(frozen=True)
class AttentionUNetOptions(UNetOptions):
  """The Attention U-Net (Oktay et al. 2018)."""

  module: ClassVar[str] = "attn_unet_jax.models.attention_unet:AttentionUNet"

  name: str = option("attention_unet", "The network.")
  gates: int = option(2, "Attention gates per skip: 2 (multi) or 1 (single).", one_of(1, 2))
  gating: str = option(
    "progressive",
    "Gating signal: of the level below; shared: of the bottleneck.",
    one_of("progressive", "shared"),
  )
  gate: str = option(
    "sigmoid",
    "Gate: sigmoid, softplus (for the inner ReLU) or softmax (over voxels).",
    one_of("sigmoid", "softplus", "softmax"),
  )
  gate_finest: bool = option(False, "Whether the finest skip is gated too.")
  gate_bias_init: float | None = option(
    None, "Initial bias of psi: 3 opens the gates; None: as published."
  )


@dataclass(frozen=True)
class DualAttentionOptions(UNetOptions):
  """The U-Net with joint spatial and channel attention and skips between all levels."""

  module: ClassVar[str] = "attn_unet_jax.models.dual_attention:DualAttentionUNet"

  name: str = option("dual_attention", "The network.")
  attention_joining: str = option(
    "product", "How attention over space and channels is joined.", one_of("product", "max", "mean")
  )
  channel_reduction: int = option(
    0, "Factor by which the layer before the channels' gate is narrower; 0: none.", NOT_NEGATIVE
  )
  parallel_skips: str = option(
    "levels", "Skips of all levels, or of the level's own alone.", one_of("levels", "own")
  )
  gate_finest: bool = option(False, "Whether the finest skip is gated too.")


@dataclass(frozen=True)
class DenseVNetOptions(ConvNetworkOptions):
  """The Dense V-Net (Gibson et al. 2018)."""

  module: ClassVar[str] = "attn_unet_jax.models.dense_vnet:DenseVNet"

  name: str = option("dense_vnet", "The network.")
  dilation_rates: tuple[tuple[int, ...], ...] = option(
    (),
    "Per stack, a tuple of the dilation rates of its layers; (): the network's own.",
    Rule(_STACKS, _are_stacks, whole=True),
  )
  channels_kept: float = option(
    0.5,
    "Part of a layer's channels that a step keeps; 1: no dropout.",
    Rule("above 0, at most 1", lambda value: 0 < value <= 1),
  )
  keep_block_input: bool = option(False, "Whether a stack's input is part of its output.")
  prior_size: int = option(12, "Cells a side of each class's spatial prior; 0: none.", NOT_NEGATIVE)


@dataclass(frozen=True)
class DenseDilatedOptions(DenseVNetOptions):
  """The dense dilated network (Gibson et al. 2017)."""

  module: ClassVar[str] = "attn_unet_jax.models.dense_vnet:DenseDilatedNet"

  name: str = option("dense_dilated", "The network.")


@dataclass(frozen=True)
class HNNOptions(NetworkOptions):
  """The holistically nested networks of three views (Roth et al. 2018)."""

  # No `conv`: its convolutions are 2-D, and XLA's own form of these is fast on a CPU too.
  module: ClassVar[str] = "attn_unet_jax.models.hnn:HNN"

  name: str = option("hnn", "The network.")
  trunk_norm: str = option(
    "none",
    "none: as VGG-16; group: GroupNorm, to learn from random weights.",
    one_of("none", "group"),
  )


@dataclass(frozen=True)
class UNet3DOptions(ConvNetworkOptions):
  """The 3D U-Net (Cicek et al. 2016)."""

  module: ClassVar[str] = "attn_unet_jax.models.unet3d:UNet3D"

  name: str = option("unet3d", "The network.")
  padding: str = option(
    "VALID", "VALID: as published, the output is smaller; or SAME.", one_of("VALID", "SAME")
  )
  # The paper uses the batch's statistics in the test as well. With the running ones a window's
  # result does not depend on the other windows of its batch.
  test_statistics: str = option(
    "running", "Batch statistics outside training.", one_of("running", "batch")
  )


@dataclass(frozen=True)
class VNetOptions(ConvNetworkOptions):
  """The V-Net of the paper (Milletari et al. 2016)."""

  module: ClassVar[str] = "attn_unet_jax.models.vnet:VNet"

  name: str = option("vnet", "The network.")


@dataclass(frozen=True)
class VNetCaffeOptions(ConvNetworkOptions):
  """The V-Net of the released code."""

  # Figure and released code of the paper have different numbers of convolutions.
  module: ClassVar[str] = "attn_unet_jax.models.vnet:VNetCaffe"

  name: str = option("vnet_caffe", "The network.")


NETWORKS: dict[str, type[NetworkOptions]] = {
  "attention_unet": AttentionUNetOptions,
  "dense_dilated": DenseDilatedOptions,
  "dense_vnet": DenseVNetOptions,
  "dual_attention": DualAttentionOptions,
  "hnn": HNNOptions,
  "unet": UNetOptions,
  "unet3d": UNet3DOptions,
  "vnet": VNetOptions,
  "vnet_caffe": VNetCaffeOptions,
}
