"""Dense V-Net (Gibson et al. 2018, IEEE TMI) and the dense dilated network (MICCAI 2017).

The graph is that of the authors' own code in NiftyNet. Restored are the parts that its released
form leaves out or cancels: dilations, batch-wise spatial dropout, a prior for each class.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from attn_unet_jax.models.initial_values import scaled_normal
from attn_unet_jax.models.layers import BatchNorm, Conv, remat_block
from attn_unet_jax.models.ops import conv as convolution
from attn_unet_jax.models.ops.dilation import convolve_dilated
from attn_unet_jax.models.ops.resize import upsample

_LEAST_PRIOR = 1e-6  # below it the logarithm would run away
# NiftyNet's initialiser is truncated. That of the released U-Nets is not, see `layers`.
_truncated_kaiming = scaled_normal(2.0, truncated=True)


class DenseVNet(nn.Module):
  """A network of dense stacks at 1/2, 1/4 and 1/8 of the grid, whose features are joined at 1/2.

  The input is halved twice over: averaged, and by a 5x5x5 convolution of stride 2. A layer of a
  stack is a 3x3x3 convolution with batch normalisation and ReLU of all that came before it in the
  stack. Each stack gives a skip, and all but the last a convolution of stride 2 to the next. The
  logits, of half the grid, gain the logarithm of the prior and are brought to the input's grid.
  Interpolation is TensorFlow 1's.

  Attributes:
    num_classes: output channels K, background included.
    feature_scale: divides all widths, 1 at least.
    dilation_rates: per stack, its layers' dilations; (): `own_rates`. Their number is the stacks'.
    channels_kept: batch-wise spatial dropout: in a training step each layer of a stack but the last
      gives a random part of its channels, for the whole batch alike, and zeros for the others,
      whose running statistics stay. Nothing is rescaled. 1: no dropout.
    keep_block_input: whether a stack's own input is among its output; the authors drop it.
    prior_size: cells a side of the prior, a trained map for each class, of the window; 0: none.
    conv: form of the convolutions, see `attn_unet_jax.models.ops.conv`.
    dtype: compute type, float32 or bfloat16; parameters, statistics and logits are float32.
    batch_axis: see `attn_unet_jax.models.layers.BatchNorm`.
    remat: so many of the finest stacks are computed again in the backward pass.
  """

  num_classes: int = 2
  feature_scale: float = 1.0
  dilation_rates: tuple[tuple[int, ...], ...] = ()
  # 0.5, and 12 below, are those of the authors' first code. NiftyNet's later prior has 24 cells.
  channels_kept: float = 0.5
  keep_block_input: bool = False
  prior_size: int = 12
  conv: convolution.Form = "auto"
  dtype: Any = jnp.float32
  batch_axis: str | None = None
  remat: int = 0

  own_rates: ClassVar[tuple[tuple[int, ...], ...]] = ((1,) * 5, (1,) * 10, (1,) * 10)
  growths: ClassVar[tuple[int, ...]] = (4, 8, 16)
  skips: ClassVar[tuple[int, ...]] = (12, 24, 24)

  @property
  def stacks(self) -> list[tuple[int, int, tuple[int, ...]]]:
    """The growth, the skip's channels and the dilations of each stack, finest first."""
    rates = self.dilation_rates or self.own_rates
    if len(rates) > len(self.growths):
      raise ValueError(f"dilation_rates of {len(rates)} stacks: at most {len(self.growths)}")
    widths = zip(self.growths, self.skips, rates, strict=False)
    return [
      (self._scale_width(growth), self._scale_width(skip), rate) for growth, skip, rate in widths
    ]

  @property
  def patch_multiple(self) -> tuple[int, int, int]:
    """The unit of patch sizes, in voxels: halved once, and before each further stack."""
    return (2 ** len(self.stacks),) * 3

  @property
  def answer_depends_on(self) -> str:
    """What the answer at a voxel depends on, see `attn_unet_jax.models`."""
    # The prior is stretched over the window.
    return "window" if self.prior_size else "borders"

  @property
  def output_margin(self) -> tuple[int, int, int]:
    """The voxels by which the output is smaller than the input, on each side of each axis."""
    return (0, 0, 0)

  def _scale_width(self, width: int) -> int:
    """Divides a published number of channels by `feature_scale`; 1 at least."""
    return max(1, int(width / self.feature_scale))

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, dict[str, Any]]:
    """Segments a batch of patches.

    Args:
      x: normalised images [N, X, Y, Z, 1]; X, Y and Z are multiples of `patch_multiple`.
      train: normalise by the batch's statistics, update the running ones, and drop channels, by
        the random stream `dropout`.

    Returns:
      Logits [N, X, Y, Z, K] in float32, and `{'gates': {}}`.

    Raises:
      ValueError: a patch size that cannot be halved as often, or too many stacks.
    """
    grid, unit = x.shape[1:4], self.patch_multiple[0]
    if any(size % unit for size in grid):
      raise ValueError(f"patch {grid}: each size must be a multiple of {unit}")
    options = {"form": self.conv, "dtype": self.dtype, "batch_axis": self.batch_axis}
    # No ReLU follows either of these two: so it is in the authors' graph.
    small = BatchNorm(self.dtype, self.batch_axis, name="small_norm")(average_pool(x), train)
    strided = ConvNorm(self._scale_width(24), 5, stride=2, **options, name="strided")(x, train)
    x = jnp.concatenate([small, strided], -1)
    # The averaged image is a skip too: 1 + 12 + 24 + 24 = 61 channels come to the head.
    found = [small]
    for level, (growth, skip, rates) in enumerate(self.stacks, 1):
      stack = remat_block(DenseStack, level, self.remat)(
        growth, rates, self.channels_kept, self.keep_block_input, **options, name=f"stack{level}"
      )
      x = stack(x, train)
      layer = functools.partial(ConvNorm, **options)
      features = nn.relu(layer(features=skip, name=f"skip{level}")(x, train))
      found.append(upsample(features, small.shape[1:4], "tf1"))
      if level < len(self.stacks):
        x = nn.relu(layer(features=self._scale_width(24), stride=2, name=f"down{level}")(x, train))
    common = {"form": self.conv, "dtype": self.dtype, "kernel_init": _truncated_kaiming}
    # The one convolution with a bias: no batch normalisation follows that would take it away.
    head = Conv(self.num_classes, bias_init=nn.initializers.zeros, **common, name="head")
    logits = head(jnp.concatenate(found, -1))
    logits = logits.astype(jnp.promote_types(self.dtype, jnp.float32))
    # The prior is added before the upsampling, as published.
    if self.prior_size:
      logits = logits + self._log_prior(logits)
    return upsample(logits, grid, "tf1"), {"gates": {}}

  def _log_prior(self, logits: jax.Array) -> jax.Array:
    """Returns the logarithm of the prior, [1, X/2, Y/2, Z/2, K]."""
    # One map for each class: a common one would cancel in the softmax.
    # Ones at the start: their logarithm is 0, so that no place is preferred before training.
    shape = (1, *(self.prior_size,) * 3, self.num_classes)
    prior = self.param("prior", nn.initializers.ones, shape, jnp.float32).astype(logits.dtype)
    return jnp.log(jnp.maximum(upsample(prior, logits.shape[1:4], "tf1"), _LEAST_PRIOR))


class DenseDilatedNet(DenseVNet):
  """A network of one dense stack at half the grid, dilated instead of pooled (MICCAI 2017).

  The paper does not list its layers; ten layers of eight channels with these dilations are our
  choice. `dilation_rates` with a second tuple, such as (1, 2, 4, 8, 1), adds a stack at 1/4.
  """

  own_rates: ClassVar[tuple[tuple[int, ...], ...]] = ((1, 1, 2, 3, 5, 2, 3, 5, 9, 1),)
  growths: ClassVar[tuple[int, ...]] = (8, 8)
  skips: ClassVar[tuple[int, ...]] = (24, 24)


class DenseStack(nn.Module):
  """A stack of 3x3x3 convolutions with batch normalisation and ReLU, each reading all before it.

  Attributes:
    growth: channels that each layer adds.
    rates: the layers' dilations.
    channels_kept: see `DenseVNet`.
    keep_block_input: see `DenseVNet`.
    form: see `attn_unet_jax.models.ops.conv`.
    dtype: compute type.
    batch_axis: see `attn_unet_jax.models.layers.BatchNorm`.
  """

  growth: int
  rates: Sequence[int]
  channels_kept: float = 1.0
  keep_block_input: bool = True
  form: convolution.Form = "auto"
  dtype: Any = jnp.float32
  batch_axis: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    """Maps [N, X, Y, Z, C] to [N, X, Y, Z, (C +) layers * growth]."""
    features = [x]
    count = math.ceil(self.channels_kept * self.growth)
    for i, rate in enumerate(self.rates):
      kept = None
      # The last layer of a stack gives all of its channels, as in the authors' code.
      if train and count < self.growth and i < len(self.rates) - 1:
        # Ranks of a permutation, not independent draws: exactly `count` channels are kept.
        kept = jax.random.permutation(self.make_rng("dropout"), self.growth) < count
      layer = ConvNorm(
        self.growth,
        rate=rate,
        form=self.form,
        dtype=self.dtype,
        batch_axis=self.batch_axis,
        name=f"layer{i}",
      )
      y = nn.relu(layer(jnp.concatenate(features, -1), train, kept))
      features.append(y if kept is None else y * kept.astype(y.dtype))
    return jnp.concatenate(features[0 if self.keep_block_input else 1 :], -1)


class ConvNorm(nn.Module):
  """A convolution without bias, then batch normalisation; no activation."""

  features: int
  size: int = 3
  stride: int = 1
  rate: int = 1
  form: convolution.Form = "auto"
  dtype: Any = jnp.float32
  batch_axis: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool, kept: jax.Array | None = None) -> jax.Array:
    """Maps [N, X, Y, Z, C] to [N, X', Y', Z', features]; for `kept` see `BatchNorm`."""
    layer = Conv(
      self.features,
      self.size,
      self.stride,
      # Batch normalisation subtracts each channel's mean, and any bias with it.
      use_bias=False,
      kernel_init=_truncated_kaiming,
      form=self.form,
      dtype=self.dtype,
      name="conv",
    )
    y = convolve_dilated(layer, x, self.rate)
    return BatchNorm(self.dtype, self.batch_axis, name="norm")(y, train, kept)


def average_pool(x: jax.Array) -> jax.Array:
  """Averages 3x3x3 windows, two voxels apart: [N, X, Y, Z, C] to [N, X/2, Y/2, Z/2, C].

  The padding is TensorFlow's `SAME`: a window begins on every even voxel, and the part of it that
  is outside the grid does not count.
  """
  # A small matrix along each axis: windows of three voxels overlap, so that a reshape, as in
  # `resize.max_pool`, does not separate them.
  for axis in (1, 2, 3):
    place, start = np.arange(x.shape[axis]), 2 * np.arange(x.shape[axis] // 2)[:, None]
    inside = (place >= start) & (place < start + 3)
    weights = jnp.asarray(inside / inside.sum(1, keepdims=True), x.dtype)
    x = jnp.moveaxis(jnp.tensordot(weights, x, (1, axis)), 0, axis)
  return x
