"""The smallest network there is, for tests of what surrounds a network: it compiles in no time."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp


class Line(nn.Module):
  """One weight and a bias, with a batch norm, dropout or a square root in front if asked for."""

  batch_norm: bool = False
  root: bool = False
  kept: float = 1.0  # part of the voxels that a step keeps
  dtype: Any = jnp.float32
  batch_axis: str | None = None  # see `attn_unet_jax.models.layers.BatchNorm`
  patch_multiple = (1, 1, 1)
  output_margin = (0, 0, 0)

  @nn.compact
  def __call__(self, x, train):
    x = x.astype(self.dtype)
    if self.batch_norm:
      axis = {"axis_name": self.batch_axis}
      x = nn.BatchNorm(use_running_average=not train, momentum=0.9, param_dtype=x.dtype, **axis)(x)
    x = nn.Dropout(1 - self.kept, deterministic=not train)(x)
    weight = self.param("kernel", nn.initializers.constant(0.5), (1,), self.dtype)
    bias = self.param("bias", nn.initializers.constant(0.0), (1,), self.dtype)
    if self.root:
      bias = jnp.sqrt(bias)  # 0 at 0, with an infinite slope
    y = weight * x + bias
    return jnp.concatenate([jnp.zeros_like(y), y], -1), {}
