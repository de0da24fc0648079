"""The released V-Net's Dice, whose gradient is not its derivative."""

import jax
import jax.numpy as jnp
from jax import Array

from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.losses.dice import SMOOTHING
from attn_unet_jax.losses.operands import VOXELS, softmax_and_one_hot


def vnet_caffe_dice(logits: Array, labels: Array) -> Array:
  """Computes the released V-Net's hard Dice, whose gradient is not its derivative.

  Arguments and errors are those of every loss, see `attn_unet_jax.losses`. With r the one-hot
  class of the largest p, I = sum(r g) and U = sum(r) + sum(g) + 1e-5, for each sample n and
  foreground class k (the released code has one):

      loss = sum over n of (1 - mean over k of 2 I / U)
      dloss/dp[k] := -2 (g U - 2 p[k] I) / U^2,   dloss/dp[0] := minus their sum over k

  This is V-Net's soft gradient with the hard I and U in it. The released layer reports the sum of
  2 I / U and maximises it; its gradient has no 1e-5 and can divide by zero.

  The loss is in [0, N]: a sum over the batch, so the gradient grows with the batch.
  """
  p, g = softmax_and_one_hot(logits, labels)
  known = (labels != UNLABELLED)[..., None]
  hard = jnp.argmax(p, -1, keepdims=True) == jnp.arange(p.shape[-1])
  return _hard_dice(p, g, (hard & known).astype(p.dtype))


@jax.custom_vjp
def _hard_dice(p: Array, g: Array, r: Array) -> Array:
  """Returns the loss; p is an argument only to receive the gradient."""
  overlap, union = _hard_sums(g, r)
  return jnp.sum(1 - jnp.mean(2 * overlap / union, axis=-1))


def _hard_sums(g: Array, r: Array) -> tuple[Array, Array]:
  """Returns I and U of `vnet_caffe_dice`, [N, K-1]."""
  g, r = g[..., 1:], r[..., 1:]
  return jnp.sum(r * g, VOXELS), jnp.sum(r + g, VOXELS) + SMOOTHING


def _hard_dice_fwd(p: Array, g: Array, r: Array) -> tuple[Array, tuple[Array, Array, Array]]:
  return _hard_dice(p, g, r), (p, g, r)


def _hard_dice_bwd(
  residuals: tuple[Array, Array, Array], slope: Array
) -> tuple[Array, Array | None, Array | None]:
  p, g, r = residuals
  overlap, union = (s[:, None, None, None] for s in _hard_sums(g, r))
  # How much a voxel's probability raises the Dice; the mean over K - 1 classes as in the loss.
  rise = 2 * (g[..., 1:] * union - 2 * p[..., 1:] * overlap) / union**2 / (p.shape[-1] - 1)
  background = jnp.sum(rise, axis=-1, keepdims=True)
  # Labels, and the classes that were chosen, have no slope.
  return slope * jnp.concatenate([background, -rise], axis=-1), None, None


_hard_dice.defvjp(_hard_dice_fwd, _hard_dice_bwd)
