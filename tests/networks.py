"""Networks of tests, by name."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from attn_unet_jax.models.build import build_network
from attn_unet_jax.models.options import NETWORKS, ConvNetworkOptions


def build(name: str, *, num_classes: int = 2, dtype: Any = "float32", **options: Any) -> nn.Module:
  """The network of that name; a test may compute it in float64, which no run can."""
  return build_network(NETWORKS[name](**options), num_classes).clone(dtype=jnp.dtype(dtype))


def build_native(name: str, **options: Any) -> nn.Module:
  """The same with XLA's own convolutions, where the network has others."""
  if issubclass(NETWORKS[name], ConvNetworkOptions):
    options["conv"] = "native"
  return build(name, **options)


def draw_variables(module: nn.Module, shape: tuple[int, int, int], seed: int = 0) -> Any:
  """Draws parameters that keep activations at their size, and statistics that say something."""
  rng = np.random.default_rng(seed)

  def draw(path: Any, array: Any) -> np.ndarray:
    name = jax.tree_util.keystr(path)
    if "var" in name or "prior" in name:
      return rng.uniform(0.5, 2, array.shape).astype(np.float32)
    values = rng.normal(size=array.shape)
    if "kernel" in name:
      values *= np.sqrt(2 / np.prod(array.shape[:-1]))
    else:
      values = 0.3 * values + ("scale" in name)
    return values.astype(np.float32)

  shapes = jax.eval_shape(
    lambda key: module.init(key, jnp.zeros((1, *shape, 1)), train=False), jax.random.key(0)
  )
  return jax.tree_util.tree_map_with_path(draw, shapes)
