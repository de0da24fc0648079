"""All losses by their name in the config, and the weighted sum of those that are asked for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from attn_unet_jax.losses.cross_entropy import (
  balanced_bce,
  binary_cross_entropy,
  cross_entropy,
  focal,
  weighted_ce,
)
from attn_unet_jax.losses.dice import (
  dice_hinge,
  generalised_dice,
  reference_dice,
  soft_dice,
  squared_dice,
  tversky,
)
from attn_unet_jax.losses.side import side_bce
from attn_unet_jax.losses.vnet_caffe import vnet_caffe_dice

LOSSES: Mapping[str, Callable[..., Array]] = {
  "dice": soft_dice,
  "bce": binary_cross_entropy,
  "balanced_bce": balanced_bce,
  "ce": cross_entropy,
  "reference_dice": reference_dice,
  "squared_dice": squared_dice,
  "vnet_caffe_dice": vnet_caffe_dice,
  "dice_hinge": dice_hinge,
  "generalised_dice": generalised_dice,
  "tversky": tversky,
  "weighted_ce": weighted_ce,
  "focal": focal,
}

_OF_SIDES = "side_bce"  # of other maps than the logits

# Those that are sums or means over the batch, not the mean over samples of a loss of each.
OVER_THE_BATCH = frozenset({"vnet_caffe_dice", "weighted_ce", "focal"})


def total(
  logits: Array,
  labels: Array,
  weights: Mapping[str, float],
  *,
  class_weights: Sequence[float] = (),
  focal_gamma: float = 2.0,
  tversky_alpha: float = 0.3,
  tversky_beta: float = 0.7,
  foreground: float = 0.0,
  sides: Mapping[int, Array] | None = None,
) -> tuple[Array, dict[str, Array]]:
  """Weighted sum of loss terms.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].
    weights: weight by term, for example `{"dice": 1.0, "bce": 1.0}`; the names are those of
      `LOSSES`, and `side_bce`.
    class_weights: of `weighted_ce`.
    focal_gamma: of `focal`.
    tversky_alpha: of `tversky`.
    tversky_beta: of `tversky`.
    foreground: of `balanced_bce` and `side_bce`.
    sides: the maps that `side_bce` reads, see there.

  Returns:
    the sum (a scalar) and each term without its weight.

  Raises:
    ValueError: no term, an unknown term, or shapes that do not fit.
  """
  unknown = sorted(set(weights) - {*LOSSES, _OF_SIDES})
  if unknown or not weights:
    fault = f"unknown loss term {', '.join(unknown)}" if unknown else "no loss term"
    raise ValueError(f"{fault}; known terms: {', '.join((*LOSSES, _OF_SIDES))}")
  options: dict[str, dict[str, Any]] = {
    "weighted_ce": {"class_weights": class_weights},
    "balanced_bce": {"foreground": foreground},
    "focal": {"gamma": focal_gamma},
    "tversky": {"alpha": tversky_alpha, "beta": tversky_beta},
  }
  terms = {
    name: side_bce(sides or {}, labels, foreground=foreground)
    if name == _OF_SIDES
    else LOSSES[name](logits, labels, **options.get(name, {}))
    for name in weights
  }
  return jnp.sum(jnp.stack([weights[name] * term for name, term in terms.items()])), terms
