"""Networks of tests, by name."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

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
