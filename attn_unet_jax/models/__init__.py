"""The networks, as Flax Linen modules that know nothing of files, flags or volumes.

`conv` decides how a 3-D convolution is computed, `layers` and `gates` are what networks are built
from, and then comes one file per network. Nothing here imports anything of the package outside
`models`. A network maps `(x [N, X, Y, Z, 1], train)` to `(logits [N, X, Y, Z, K], out)` with the
gates' coefficients in `out["gates"]` (and `hnn`'s maps, by which it is trained, beside them), and
states by `patch_multiple` and `output_margin` which patches it takes and how much smaller its
output is; where those patches are no plain multiples, `patch_offset` is what is added;
`kernel_size` is that of its widest convolution, if devices can divide its patches. `build` names
them for the config.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from attn_unet_jax.models.attention_unet import AttentionUNet
from attn_unet_jax.models.dense_vnet import DenseDilatedNet, DenseVNet
from attn_unet_jax.models.dual_attention import DualAttentionUNet
from attn_unet_jax.models.hnn import HNN
from attn_unet_jax.models.unet import UNet
from attn_unet_jax.models.unet3d import UNet3D
from attn_unet_jax.models.vnet import VNet, VNetCaffe

NETWORKS: dict[str, type[nn.Module]] = {
  "attention_unet": AttentionUNet,
  "dense_dilated": DenseDilatedNet,
  "dense_vnet": DenseVNet,
  "dual_attention": DualAttentionUNet,
  "hnn": HNN,
  "unet": UNet,
  "unet3d": UNet3D,
  "vnet": VNet,
  "vnet_caffe": VNetCaffe,
}


def build(
  name: str, *, num_classes: int = 2, dtype: Any = jnp.float32, **options: Any
) -> nn.Module:
  """The network of that name.

  Args:
    name: a key of `NETWORKS`.
    num_classes: output channels, background included; `hnn` knows 2 alone.
    dtype: compute type, or its name.
    options: further attributes of the networks; those that only others have are not read.

  Raises:
    ValueError: no network has that name, none has such an option, or too many classes.
  """
  if name not in NETWORKS:
    raise ValueError(f"no network is called {name!r}: choose from {', '.join(sorted(NETWORKS))}")
  if unknown := options.keys() - set().union(*map(_fields, NETWORKS.values())):
    raise ValueError(f"no network has the options {sorted(unknown)}")
  options |= {"num_classes": num_classes, "dtype": jnp.dtype(dtype)}
  module = NETWORKS[name](**{k: v for k, v in options.items() if k in _fields(NETWORKS[name])})
  if module.num_classes != num_classes:
    raise ValueError(f"{name} tells one class from the background, not {num_classes - 1}")
  return module


def _fields(network: type[nn.Module]) -> set[str]:
  return set(network.__dataclass_fields__)


def nearest_patch(network: nn.Module, patch: Sequence[int]) -> tuple[int, ...]:
  """The patch size nearest to `patch` (voxels per axis) that the network can take.

  Sizes are `patch_offset + n * patch_multiple`, n = 1, 2, ...; most networks have no offset.
  """
  offsets = getattr(network, "patch_offset", (0, 0, 0))
  return tuple(
    offset + unit * max(1, round((size - offset) / unit))
    for size, unit, offset in zip(patch, network.patch_multiple, offsets, strict=True)
  )
