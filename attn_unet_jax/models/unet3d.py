"""3D U-Net: Cicek et al. 2016, arXiv:1606.06650."""

from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from attn_unet_jax.models.layers import BatchNorm, Conv, remat_block
from attn_unet_jax.models.ops import conv as convolution
from attn_unet_jax.models.ops.resize import max_pool
from attn_unet_jax.models.upconv import UpConv

Padding = Literal["VALID", "SAME"]
Statistics = Literal["running", "batch"]

_LEVELS = 4
# Two voxels a block, at scales 1, 2, 4, 8 on the way down and 4, 2, 1 up: 2 * 22.
_MARGIN = 44  # voxels that the unpadded convolutions of all levels take off each side


class UNet3D(nn.Module):
  """A U-Net of four levels with two 3x3x3 convolutions, whose channels double before each pooling.

  As published it pads nothing: the logits of a voxel depend only on the voxels around it, and the
  output is 44 voxels smaller than the input on each side (132x132x116 gives 44x44x28). The
  skips' centres are cropped to fit. With `SAME` padding the grid is kept. The up-convolutions have
  no bias: the convolutions that follow have one.

  Attributes:
    num_classes: output channels K, background included.
    feature_scale: channels are int(64 / feature_scale) ... int(512 / feature_scale), 2 at least.
    padding: `VALID`, as published, or `SAME`.
    test_statistics: what batch normalisation uses outside training: the `running` statistics, or,
      as published, those of the `batch` at hand.
    conv: form of the convolutions, see `attn_unet_jax.models.ops.conv`.
    dtype: compute type, float32 or bfloat16; parameters, statistics and logits are float32.
    batch_axis: see `attn_unet_jax.models.layers.BatchNorm`.
    remat: so many of the finest levels compute their blocks again in the backward pass.
  """

  num_classes: int = 2
  feature_scale: float = 1.0
  padding: Padding = "VALID"
  test_statistics: Statistics = "running"
  conv: convolution.Form = "auto"
  dtype: Any = jnp.float32
  batch_axis: str | None = None
  remat: int = 0

  @property
  def filters(self) -> tuple[int, ...]:
    """The channels of the four levels, finest first."""
    # 2 at least: the first convolution of an encoder level has half of it.
    return tuple(max(2, int(width / self.feature_scale)) for width in (64, 128, 256, 512))

  @property
  def patch_multiple(self) -> tuple[int, int, int]:
    """The unit of patch sizes beyond `patch_offset`, in voxels: three poolings halve the grid."""
    return (8, 8, 8)

  @property
  def patch_offset(self) -> tuple[int, int, int]:
    """The offset of patch sizes. The smallest unpadded patch, 92, leaves an output of 4."""
    return (84, 84, 84) if self.padding == "VALID" else (0, 0, 0)

  @property
  def kernel_size(self) -> int:
    """The size of the widest convolution, in voxels."""
    return 3

  @property
  def answer_depends_on(self) -> str:
    """What the answer at a voxel depends on, see `attn_unet_jax.models`."""
    if self.test_statistics == "batch":
      return "window"
    return "surroundings" if self.padding == "VALID" else "borders"

  @property
  def output_margin(self) -> tuple[int, int, int]:
    """The voxels by which the output is smaller than the input, on each side of each axis."""
    return (_MARGIN,) * 3 if self.padding == "VALID" else (0, 0, 0)

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, dict[str, Any]]:
    """Segments a batch of patches.

    Args:
      x: normalised images [N, X, Y, Z, C]; for X, Y and Z see `patch_multiple`.
      train: normalise by the batch's statistics, and update the running ones.

    Returns:
      Logits [N, X', Y', Z', K] in float32, X' = X - 2 * `output_margin`; and `{'gates': {}}`.

    Raises:
      ValueError: a patch size that the network cannot take.
    """
    self._check(x.shape[1:4])
    if self.test_statistics == "batch" and not (train or self.is_initializing()):
      # A training pass whose new running statistics are dropped: they are not mutable here.
      again = self.clone(parent=None)
      result: tuple[jax.Array, dict[str, Any]] = again.apply(
        self.variables, x, True, mutable=["batch_stats"]
      )[0]
      return result
    options = {"form": self.conv, "dtype": self.dtype}

    def block(level: int, widths: tuple[int, int], name: str) -> nn.Module:
      """Makes the block of a level."""
      kind = remat_block(_Block, level, self.remat)
      return kind(widths, self.padding, **options, batch_axis=self.batch_axis, name=name)

    skips = []
    for level, width in enumerate(self.filters, 1):
      # As published, channels double in the second convolution, before the pooling.
      x = block(level, (width // 2, width), f"encoder{level}")(x, train)
      if level < _LEVELS:
        skips.append(x)
        x = max_pool(x)
    for level in range(_LEVELS - 1, 0, -1):
      x = UpConv(x.shape[-1], use_bias=False, **options, name=f"up{level}")(x)
      x = jnp.concatenate([x, crop_centre(skips[level - 1], x.shape[1:4])], -1)
      width = self.filters[level - 1]
      x = block(level, (width, width), f"decoder{level}")(x, train)
    logits = Conv(self.num_classes, 1, **options, name="head")(x)
    return logits.astype(jnp.promote_types(self.dtype, jnp.float32)), {"gates": {}}

  def _check(self, patch: tuple[int, ...]) -> None:
    """Raises ValueError for a patch size that the network cannot take."""
    unit, offset = self.patch_multiple[0], self.patch_offset[0]
    if any(size <= offset or (size - offset) % unit for size in patch):
      raise ValueError(f"patch {patch}: each size must be {offset} + a multiple of {unit}")


class _Block(nn.Module):
  """A pair of 3x3x3 convolutions of given widths, each with batch normalisation and ReLU."""

  widths: tuple[int, int]
  padding: Padding
  form: convolution.Form = "auto"
  dtype: Any = jnp.float32
  batch_axis: str | None = None

  @nn.compact
  def __call__(self, x: jax.Array, train: bool) -> jax.Array:
    for width in self.widths:
      # The normalisation makes its bias redundant. The paper's 19,069,955 parameters count it.
      x = Conv(width, padding=self.padding, form=self.form, dtype=self.dtype)(x)
      x = nn.relu(BatchNorm(self.dtype, self.batch_axis)(x, train))
    return x


def crop_centre(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Crops the middle of x [N, X, Y, Z, C] to the grid `shape`."""
  low = [(size - wanted) // 2 for size, wanted in zip(x.shape[1:4], shape, strict=True)]
  x_slice, y_slice, z_slice = (slice(a, a + n) for a, n in zip(low, shape, strict=True))
  return x[:, x_slice, y_slice, z_slice]
