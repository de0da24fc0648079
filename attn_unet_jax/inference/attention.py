"""Measures where a network's attention gates look: their coefficients over a whole volume."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from attn_unet_jax.inference.options import PredictionRecipe
from attn_unet_jax.inference.sliding import SlidingWindow
from attn_unet_jax.models.ops.resize import upsample
from attn_unet_jax.patches.batch import normalise_intensity, output_shape


class AttentionMaps(SlidingWindow):
  """A sliding window whose values are the coefficients of the gates, not probabilities.

  `predict` returns them as float32 `[X, Y, Z, G]` in [0, 1], averaged over windows as probabilities
  are. A gate of a coarser level is interpolated to the voxels of the volume.

  Attributes:
    names: the gates, as the network names them, finest level first: `level2/0`, `level2/1`, ...;
      empty for a network without gates, of which nothing can be predicted.
  """

  def __init__(self, recipe: PredictionRecipe, module: nn.Module, variables: Any):
    super().__init__(recipe, module)
    self.use(variables)
    image = jax.ShapeDtypeStruct((1, *recipe.window, 1), jnp.float32)
    _, about = jax.eval_shape(lambda v, x: module.apply(v, x, train=False), variables, image)
    self.names = tuple(about.get("gates", ()))
    # In the air around the body, where no window is, no gate is open.
    self._outside = np.zeros(len(self.names), np.float32)

    def measure_window(variables: Any, hu: jax.Array, mean: jax.Array, sd: jax.Array) -> jax.Array:
      """Returns the gates' coefficients at the voxels of a window's answer, `[X', Y', Z', G]`."""
      image = normalise_intensity(recipe.data, hu, mean, sd)[None, ..., None]
      _, about = module.apply(variables, image, train=False)
      # A gate may have a coefficient for each channel, of which the mean is told.
      maps = (
        about["gates"][name].astype(jnp.float32).mean(-1, keepdims=True) for name in self.names
      )
      x, y, z = hu.shape
      inner = output_shape((x, y, z), module.output_margin)
      # By the places of the voxels: a pooled one lies in the middle of those that it came from.
      return jnp.concatenate([upsample(one, inner, "half_pixel") for one in maps], -1)[0]

    self.window = jax.jit(measure_window)
