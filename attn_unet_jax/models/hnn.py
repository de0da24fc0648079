"""Holistically nested networks on CT slices: Xie and Tu 2015, Roth et al. 2018 (arXiv:1702.00045).

Three 2-D networks, one for each view. Each is the trunk of VGG-16 with a map of the organ from
every stage. The result at a voxel is the mean of the two views with the largest probabilities.
"""

import math
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from attn_unet_jax.models.layers import add_bias, kaiming_normal, remat_block
from attn_unet_jax.models.ops.resize import larger_of_two, upsample

# View -> the axis of [N, X, Y, Z, C] along which its slices are stacked.
VIEWS: Mapping[str, int] = {"axial": 3, "coronal": 2, "sagittal": 1}
STAGES = (2, 2, 3, 3, 3)  # convolutions of VGG-16's stages
_WIDTHS = (64, 128, 256, 512, 512)
# Of ImageNet's red, green and blue in 0..1, as torchvision's VGG-16 was trained.
_MEAN, _SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CHANNELS_PER_GROUP = 16  # of GroupNorm: Wu and He 2018, table 3

TrunkNorm = Literal["none", "group"]


class HNN(nn.Module):
  """A holistically nested network for each view, and the mean of the two largest probabilities.

  The views share nothing. Training reads `out["side_logits"]` alone (`losses.side_bce`); no
  gradient goes through the fusion of the views, which would make one view's error another's.

  Attributes:
    feature_scale: channels are int(64 / feature_scale) ... int(512 / feature_scale), 1 at least.
    trunk_norm: `none`, as VGG-16; `group`: GroupNorm after every convolution, of each slice by
      itself, without which thirteen layers hardly learn from random weights.
    dtype: compute type, float32 or bfloat16; parameters and logits are float32.
    remat: so many of the finest stages are computed again in the backward pass.
  """

  feature_scale: float = 1.0
  trunk_norm: TrunkNorm = "none"
  dtype: Any = jnp.float32
  remat: int = 0

  @property
  def num_classes(self) -> int:
    """The number of classes, background and one organ: a map is that of a probability."""
    return 2

  @property
  def patch_multiple(self) -> tuple[int, int, int]:
    """The unit of patch sizes, in voxels: slices are halved four times."""
    return (16, 16, 16)

  @property
  def answer_depends_on(self) -> str:
    """What the answer at a voxel depends on, see `attn_unet_jax.models`."""
    # GroupNorm takes the statistics of a slice's whole part in the window.
    return "window" if self.trunk_norm == "group" else "borders"

  @property
  def output_margin(self) -> tuple[int, int, int]:
    """The voxels by which the output is smaller than the input, on each side of each axis."""
    return (0, 0, 0)

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, dict[str, Any]]:
    """Segments a batch of patches, slice by slice along each axis.

    Args:
      x: images normalised by a window [N, X, Y, Z, 1]; X, Y, Z are multiples of `patch_multiple`.
      train: not read; nothing here differs in training.

    Returns:
      Logits [N, X, Y, Z, 2] in float32 whose softmax is the fused probability, and `out` with
      `side_logits`: by axis of the slices (1, 2, 3) the maps [N, X, Y, Z, 6] of that view, five
      side outputs, finest first, and their fusion; sigmoid makes them probabilities.

    Raises:
      ValueError: a patch size that cannot be halved four times.
    """
    del train
    if any(size % unit for size, unit in zip(x.shape[1:4], self.patch_multiple, strict=True)):
      raise ValueError(f"patch {x.shape[1:4]}: each size must be a multiple of 16")
    maps = {}
    for view, axis in VIEWS.items():
      # The slices of a view become the batch of a 2-D network.
      slices = jnp.moveaxis(x, axis, 1)
      flat = slices.reshape(-1, *slices.shape[2:])
      network = SliceNetwork(self.feature_scale, self.trunk_norm, self.dtype, self.remat, name=view)
      sides = network(flat).reshape(*slices.shape[:-1], -1)
      maps[axis] = jnp.moveaxis(sides, 1, axis)
    # Without the stop one view's error would change the others.
    fused = lax.stop_gradient([sides[..., -1] for sides in maps.values()])
    foreground = mean_of_top_two(*fused)
    # The softmax of (0, f) is sigmoid(f): so prediction and scores treat it as any network.
    logits = jnp.stack([jnp.zeros_like(foreground), foreground], -1)
    return logits, {"gates": {}, "side_logits": maps}


def mean_of_top_two(a: jax.Array, b: jax.Array, c: jax.Array) -> jax.Array:
  """Computes the logit of the mean of the two largest of three probabilities, given as logits.

  logit p = log(p1 + p2) - log((1 - p1) + (1 - p2)),   p1 >= p2 >= p3,  p = sigmoid(logit)
  """
  # In logarithms, so that probabilities near 0 and 1 are neither lost nor infinite.
  first = jnp.maximum(jnp.maximum(a, b), c)
  second = jnp.maximum(jnp.minimum(a, b), jnp.minimum(jnp.maximum(a, b), c))
  log = jax.nn.log_sigmoid
  return jnp.logaddexp(log(first), log(second)) - jnp.logaddexp(log(-first), log(-second))


class SliceNetwork(nn.Module):
  """The network of one view, for slices [S, A, B, 1]; see `HNN` for its attributes."""

  feature_scale: float = 1.0
  trunk_norm: TrunkNorm = "none"
  dtype: Any = jnp.float32
  remat: int = 0

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns logits [S, A, B, 6] in float32: five side outputs and their fusion."""
    wide = jnp.promote_types(self.dtype, jnp.float32)
    grid = x.shape[1:3]
    # From one channel to three by broadcasting: VGG-16's first filters are made for colours.
    x = ((x - jnp.asarray(_MEAN, x.dtype)) / jnp.asarray(_SD, x.dtype)).astype(self.dtype)
    sides = []
    for number, (convolutions, width) in enumerate(zip(STAGES, _WIDTHS, strict=True), 1):
      channels = max(1, int(width / self.feature_scale))
      stage = remat_block(Stage, number, self.remat, takes_train=False)
      # Between stages only: the authors leave out VGG-16's last pooling.
      x = max_pool(x) if number > 1 else x
      x = stage(channels, convolutions, self.trunk_norm, self.dtype, name=f"stage{number}")(x)
      # Zero at the start: every map says 1/2 until its own loss moves it.
      side = _Layer(1, (), self.dtype, nn.initializers.zeros, name=f"side{number}")
      sides.append(_upsample_side(side(x).astype(wide), grid))
    maps = jnp.concatenate(sides, -1)
    # 0.2: the fusion starts as the mean of the five side outputs.
    fuse = nn.Dense(1, dtype=wide, kernel_init=nn.initializers.constant(0.2), name="fuse")
    return jnp.concatenate([maps, fuse(maps)], -1)


class Stage(nn.Module):
  """A stage of 3x3 convolutions with ReLU, [S, A, B, C] to [S, A, B, features]."""

  features: int
  convolutions: int
  trunk_norm: TrunkNorm = "none"
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Applies all convolutions of the stage; no pooling."""
    for i in range(1, self.convolutions + 1):
      x = _Layer(self.features, (3, 3), self.dtype, kaiming_normal, name=f"conv{i}")(x)
      if self.trunk_norm == "group":
        # `feature_scale` may make any number of channels, and a group must divide it.
        groups = math.gcd(self.features, max(1, self.features // _CHANNELS_PER_GROUP))
        x = nn.GroupNorm(groups, dtype=self.dtype, name=f"norm{i}")(x)
      x = nn.relu(x)
    return x


class _Layer(nn.Module):
  """A convolution [S, A, B, C] to [S, A, B, features]; without a size a matrix product.

  It differs from `nn.Conv` and `nn.Dense` in the gradient of the bias, see `layers.add_bias`.
  """

  features: int
  size: tuple[int, ...]
  dtype: Any
  kernel_init: nn.initializers.Initializer

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    shape = (*self.size, x.shape[-1], self.features)
    kernel = self.param("kernel", self.kernel_init, shape, jnp.float32).astype(self.dtype)
    bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
    if not self.size:
      return add_bias(x @ kernel, bias)
    # The published network pads the slice by 35 pixels and crops every map afterwards. With
    # SAME padding neither is needed.
    layout, ones = ("NABC", "ABIO", "NABC"), (1,) * len(self.size)
    return add_bias(
      lax.conv_general_dilated(x, kernel, ones, "SAME", dimension_numbers=layout), bias
    )


def max_pool(x: jax.Array) -> jax.Array:
  """Takes the largest of every 2x2 block, [S, A, B, C] to [S, A/2, B/2, C]."""
  # By reshape, as in `resize.max_pool`, whose docstring gives the reason.
  s, A, B, channels = x.shape
  blocks = x.reshape(s, A // 2, 2, B // 2, 2, channels)
  return larger_of_two(larger_of_two(blocks, 2), 3)


def _upsample_side(side: jax.Array, grid: tuple[int, ...]) -> jax.Array:
  """Upsamples a side output [S, a, b, 1] to the slice's grid, bilinearly between voxel centres."""
  # Fixed weights: the published network upsamples by a deconvolution that does not learn.
  return upsample(side[:, None], (1, *grid), "half_pixel")[:, 0]
