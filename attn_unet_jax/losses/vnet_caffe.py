"""The released V-Net's Dice, whose gradient is not its derivative."""

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.losses.dice import SMOOTHING
from attn_unet_jax.losses.operands import VOXELS, labelled


def vnet_caffe_dice(logits: Array, labels: Array) -> Array:
  """What the released V-Net trains with: a hard Dice, and a gradient that is not its derivative.

  With r the one-hot class of the largest p, I = sum(r g) and U = sum(r) + sum(g) + 1e-5, for each
  sample n and foreground class k (the released code has one):

      loss = sum over n of (1 - mean over k of 2 I / U)
      dloss/dp[k] := -2 (g U - 2 p[k] I) / U^2,   dloss/dp[0] := minus their sum over k

  This is V-Net's soft gradient with the hard I and U put in. The released layer reports the sum of
  2 I / U and climbs it; it has no 1e-5 in the gradient, where it would divide by zero.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].

  Returns:
    scalar in [0, N]: a sum over the batch, so the gradient grows with it.

  Raises:
    ValueError: the shapes do not fit, or K < 2.
  """
  p, g = labelled(logits, labels)
  known = (labels != UNLABELLED)[..., None]
  hard = jnp.argmax(p, -1, keepdims=True) == jnp.arange(p.shape[-1])
  return _climbed_dice(p, g, (hard & known).astype(p.dtype))


@jax.custom_vjp
def _climbed_dice(p: Array, g: Array, r: Array) -> Array:
  overlap, union = _hard_sums(g, r)
  return jnp.sum(1 - jnp.mean(2 * overlap / union, axis=-1))


def _hard_sums(g: Array, r: Array) -> tuple[Array, Array]:
  """I and U of `vnet_caffe_dice`, [N, K-1]."""
  g, r = g[..., 1:], r[..., 1:]
  return jnp.sum(r * g, VOXELS), jnp.sum(r + g, VOXELS) + SMOOTHING


def _climbed_dice_fwd(p: Array, g: Array, r: Array) -> tuple[Array, tuple[Array, Array, Array]]:
  return _climbed_dice(p, g, r), (p, g, r)


def _climbed_dice_bwd(
  kept: tuple[Array, Array, Array], slope: Array
) -> tuple[Array, Array | None, Array | None]:
  p, g, r = kept
  overlap, union = (s[:, None, None, None] for s in _hard_sums(g, r))
  rise = 2 * (g[..., 1:] * union - 2 * p[..., 1:] * overlap) / union**2 / (p.shape[-1] - 1)
  background = jnp.sum(rise, axis=-1, keepdims=True)
  return slope * jnp.concatenate([background, -rise], axis=-1), None, None


_climbed_dice.defvjp(_climbed_dice_fwd, _climbed_dice_bwd)
