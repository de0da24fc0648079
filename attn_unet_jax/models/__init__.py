"""The networks, as Flax Linen modules that know nothing of files, flags or volumes.

`conv` decides how a 3-D convolution is computed, `layers` and `gates` are what networks are built
from, and then comes one file per network. Nothing here imports anything of the package outside
`models`. A network maps `(x [N, X, Y, Z, 1], train)` to `(logits [N, X, Y, Z, K], out)` with the
gates' coefficients in `out["gates"]`, and states by `patch_multiple` and `output_margin` which
patches it takes and how much smaller its output is. `build` names them for the config.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from attn_unet_jax.models.attention_unet import AttentionUNet
from attn_unet_jax.models.conv import Form
from attn_unet_jax.models.unet import UNet

NETWORKS: dict[str, type[UNet]] = {"attention_unet": AttentionUNet, "unet": UNet}


def build(
  name: str,
  *,
  num_classes: int = 2,
  feature_scale: float = 4.0,
  gates: int = 2,
  gate_bias_init: float | None = None,
  conv: Form = "auto",
  dtype: Any = jnp.float32,
) -> UNet:
  """The network of that name.

  Args:
    name: a key of `NETWORKS`.
    num_classes: output channels, background included.
    feature_scale: divides the reference's widths 64 ... 1024.
    gates: gates per skip; the plain U-Net has none and does not read it.
    gate_bias_init: start of a gate's last bias; None is PyTorch's default. As `gates`.
    conv: form of the convolutions.
    dtype: compute type.

  Raises:
    ValueError: no network has that name.
  """
  if name not in NETWORKS:
    raise ValueError(f"no network is called {name!r}: choose from {', '.join(sorted(NETWORKS))}")
  options: dict[str, Any] = {"gates": gates, "gate_bias_init": gate_bias_init}
  fields = NETWORKS[name].__dataclass_fields__
  return NETWORKS[name](
    num_classes=num_classes,
    feature_scale=feature_scale,
    conv=conv,
    dtype=dtype,
    **{key: value for key, value in options.items() if key in fields},
  )


def nearest_patch(network: UNet, patch: Sequence[int]) -> tuple[int, ...]:
  """The patch size nearest to `patch` (voxels per axis) that the network can take."""
  return tuple(
    unit * max(1, round(size / unit))
    for size, unit in zip(patch, network.patch_multiple, strict=True)
  )
