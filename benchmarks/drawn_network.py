"""A network with drawn values, for benchmarks to which values do not matter."""

import jax
import jax.numpy as jnp
import numpy as np

from attn_unet_jax.config.schema import RunConfig
from attn_unet_jax.inference.sliding import Shape, SlidingWindow
from attn_unet_jax.models.build import build_network
from attn_unet_jax.models.options import NETWORKS


def draw_system(network: str, window: Shape) -> SlidingWindow:
  """Draws a network whose kernels keep activations at their size.

  Args:
    network: its name in the registry.
    window: the size that its shapes are found with, in voxels.
  """
  module, draw = build_network(NETWORKS[network]()), np.random.default_rng(0)
  image = jnp.zeros((1, *window, 1))
  # Drawn here, since XLA compiles the network's own initialisation for minutes.
  shapes = jax.eval_shape(lambda key: module.init(key, image, train=False), jax.random.key(0))

  variables = jax.tree.map(lambda one: draw_values(one.shape, draw), shapes)
  return SlidingWindow(RunConfig(), module).use(variables)


def draw_values(shape: tuple[int, ...], draw: np.random.Generator) -> np.ndarray:
  """Draws a kernel (He et al. 2015); what has one axis, or none, is 1."""
  if len(shape) < 2:
    return np.ones(shape, np.float32)
  scale = np.sqrt(2 / np.prod(shape[:-1]))
  return (scale * draw.normal(size=shape)).astype(np.float32)
