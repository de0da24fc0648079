"""Segmentation losses: one pure function per loss, and `total`, which sums the configured terms.

Every loss maps logits `[N, X, Y, Z, K]` and integer labels `[N, X, Y, Z]` in `0..K-1` (0 is the
background) to a scalar. Logits of a lower precision than float32 are computed on in float32;
float64 stays float64, so that gradients can be checked. A label outside `0..K-1` counts as no
class: it adds nothing to the Dice sums and to the cross-entropy.

The label `UNLABELLED` marks a voxel of which nobody said what it is. `squared_dice`,
`vnet_caffe_dice`, `generalised_dice`, `tversky`, `weighted_ce` and `focal` leave such voxels out of
every sum. The others are for complete labels: Dice still counts what is predicted there, `bce`
takes it for foreground.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

SMOOTHING = 1e-5
REFERENCE_SMOOTHING = 0.01
UNLABELLED = 255  # the largest uint8

_VOXELS = (1, 2, 3)


def soft_dice(logits: Array, labels: Array) -> Array:
  """Soft Dice loss over the foreground classes.

      d[n, k] = (2 sum(p g) + eps) / (sum(p) + sum(g) + eps);  loss = 1 - mean of d, k = 1..K-1

  Sums run over the voxels of one sample, p is the softmax, g the one-hot label, eps = 1e-5. The
  smoothing stands outside the factor 2, so d never exceeds 1: a class neither present nor
  predicted scores 1, a class absent but predicted scores nearly 0.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].

  Returns:
    scalar in [0, 1].

  Raises:
    ValueError: the shapes do not fit, or K < 2.
  """
  overlap, mass = _dice_sums(logits, labels)
  score = (2 * overlap + SMOOTHING) / (mass + SMOOTHING)
  return 1 - jnp.mean(score[:, 1:])


def reference_dice(logits: Array, labels: Array) -> Array:
  """Dice loss of the released Attention U-Net code (Oktay et al. 2018), its smoothing included.

      d[n, k] = 2 (sum(p g) + 0.01) / (sum(p) + sum(g) + 0.01);  loss = 1 - mean of d, k = 0..K-1

  The mean includes the background. The smoothing stands inside the factor 2: a class neither
  present nor predicted scores 2, so the loss may be negative.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].

  Returns:
    scalar in (-1, 1).

  Raises:
    ValueError: the shapes do not fit, or K < 2.
  """
  overlap, mass = _dice_sums(logits, labels)
  return 1 - jnp.mean(2 * (overlap + REFERENCE_SMOOTHING) / (mass + REFERENCE_SMOOTHING))


def binary_cross_entropy(logits: Array, labels: Array) -> Array:
  """Cross-entropy of foreground against background, mean over samples and voxels.

      -log(q) where label > 0, -log(1 - q) elsewhere;  q = 1 - softmax(logits)[0]

  With z = logsumexp(logits[1:]) - logits[0], q = sigmoid(z) and both logarithms are softplus(-+z),
  which neither overflows nor loses small probabilities. For K = 2 it equals `cross_entropy`.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].

  Returns:
    scalar >= 0, in nats.

  Raises:
    ValueError: the shapes do not fit, or K < 2.
  """
  logits = _checked(logits, labels)
  z = jax.nn.logsumexp(logits[..., 1:], axis=-1) - logits[..., 0]
  return jnp.mean(jax.nn.softplus(jnp.where(labels > 0, -z, z)))


def cross_entropy(logits: Array, labels: Array) -> Array:
  """Cross-entropy over all classes, -log softmax(logits)[label], mean over samples and voxels.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].

  Returns:
    scalar >= 0, in nats.

  Raises:
    ValueError: the shapes do not fit, or K < 2.
  """
  logits = _checked(logits, labels)
  # A mask, not a product with the one-hot label: 0 * -inf would be NaN.
  of_label = jnp.where(_is_class(logits, labels), jax.nn.log_softmax(logits), 0)
  return -jnp.mean(jnp.sum(of_label, axis=-1))


def squared_dice(logits: Array, labels: Array) -> Array:
  """V-Net's Dice loss (Milletari et al. 2016, section 3), over the foreground classes.

      d[n, k] = (2 sum(p g) + eps) / (sum(p^2) + sum(g^2) + eps);  loss = 1 - mean, k = 1..K-1

  The paper has no eps (1e-5); it keeps a class that is neither present nor predicted from 0/0.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].

  Returns:
    scalar in [0, 1].

  Raises:
    ValueError: the shapes do not fit, or K < 2.
  """
  p, g = _labelled(logits, labels)
  overlap, mass = jnp.sum(p * g, _VOXELS), jnp.sum(p**2 + g, _VOXELS)
  return 1 - jnp.mean(((2 * overlap + SMOOTHING) / (mass + SMOOTHING))[:, 1:])


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
  p, g = _labelled(logits, labels)
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
  return jnp.sum(r * g, _VOXELS), jnp.sum(r + g, _VOXELS) + SMOOTHING


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


def generalised_dice(logits: Array, labels: Array) -> Array:
  """Generalised Dice loss (Sudre et al. 2017, arXiv:1707.03237), background included.

      loss = 1 - mean over n of 2 sum_k w[k] sum(p g) / sum_k w[k] (sum(p) + sum(g))
      w[k] = 1 / sum(g)^2

  A class absent from a sample has the largest weight of those present, not an infinite one: else
  nothing but its false positives would count.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].

  Returns:
    scalar in [0, 1]; 1 where nothing is labelled.

  Raises:
    ValueError: the shapes do not fit, or K < 2.
  """
  p, g = _labelled(logits, labels)
  volume = jnp.sum(g, _VOXELS)
  weight = jnp.where(volume > 0, 1 / jnp.maximum(volume, 1) ** 2, 0)
  weight = jnp.where(volume > 0, weight, jnp.max(weight, axis=-1, keepdims=True))
  overlap = jnp.sum(weight * jnp.sum(p * g, _VOXELS), axis=-1)
  mass = jnp.sum(weight * jnp.sum(p + g, _VOXELS), axis=-1)
  return 1 - jnp.mean(2 * overlap / jnp.maximum(mass, jnp.finfo(mass.dtype).tiny))


def tversky(logits: Array, labels: Array, *, alpha: float = 0.3, beta: float = 0.7) -> Array:
  """Tversky loss (Salehi et al. 2017, arXiv:1706.05721), over the foreground classes.

      T[n, k] = (sum(p g) + eps) / (sum(p g) + alpha sum(p (1 - g)) + beta sum((1 - p) g) + eps)
      loss = 1 - mean of T, k = 1..K-1

  At alpha = beta = 1/2 it is the soft Dice; a larger beta asks for recall.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].
    alpha: weight of false positives.
    beta: weight of false negatives.

  Returns:
    scalar in [0, 1].

  Raises:
    ValueError: the shapes do not fit, or K < 2.
  """
  p, g = _labelled(logits, labels)
  overlap = jnp.sum(p * g, _VOXELS)
  false = jnp.sum(alpha * p * (1 - g) + beta * (1 - p) * g, _VOXELS)
  return 1 - jnp.mean(((overlap + SMOOTHING) / (overlap + false + SMOOTHING))[:, 1:])


def weighted_ce(logits: Array, labels: Array, *, class_weights: Sequence[float] = ()) -> Array:
  """Cross-entropy with a weight per class, over labelled voxels (as in Cicek et al. 2016).

      loss = sum_v w[label_v] (-log softmax(logits)_v[label_v]) / sum_v w[label_v]

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z]; `UNLABELLED` voxels have weight 0.
    class_weights: K weights, background first; empty: all 1.

  Returns:
    scalar >= 0, in nats; 0 where nothing is labelled.

  Raises:
    ValueError: the shapes do not fit, K < 2, or there are not K weights.
  """
  log_p = jax.nn.log_softmax(_checked(logits, labels))
  classes = logits.shape[-1]
  if len(class_weights) not in (0, classes):
    raise ValueError(f"{len(class_weights)} class weights for {classes} classes")
  weights = jnp.asarray(class_weights or (1.0,) * classes, log_p.dtype)
  weight = jnp.where(_is_class(logits, labels), weights, 0)
  cost = -jnp.sum(weight * jnp.where(weight > 0, log_p, 0))
  return cost / jnp.maximum(jnp.sum(weight), jnp.finfo(log_p.dtype).tiny)


def focal(logits: Array, labels: Array, *, gamma: float = 2.0) -> Array:
  """Focal loss (Lin et al. 2017, arXiv:1708.02002), mean over labelled voxels.

      loss = mean_v -(1 - q_v)^gamma log q_v,   q = softmax(logits)[label]

  At gamma = 0 it is the cross-entropy; a larger gamma plays down voxels that are right already.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].
    gamma: exponent, at least 0.

  Returns:
    scalar >= 0, in nats; 0 where nothing is labelled.

  Raises:
    ValueError: the shapes do not fit, or K < 2.
  """
  log_p = jax.nn.log_softmax(_checked(logits, labels))
  of_label = _is_class(logits, labels)
  log_q = jnp.sum(jnp.where(of_label, log_p, 0), axis=-1)
  # Held above 0, where the slope of a root (gamma < 1) is infinite.
  doubt = jnp.maximum(-jnp.expm1(log_q), jnp.finfo(log_q.dtype).eps)
  cost = jnp.sum(jnp.where(labels != UNLABELLED, -(doubt**gamma) * log_q, 0))
  return cost / jnp.maximum(jnp.sum(of_label), 1)


LOSSES: Mapping[str, Callable[..., Array]] = {
  "dice": soft_dice,
  "bce": binary_cross_entropy,
  "ce": cross_entropy,
  "reference_dice": reference_dice,
  "squared_dice": squared_dice,
  "vnet_caffe_dice": vnet_caffe_dice,
  "generalised_dice": generalised_dice,
  "tversky": tversky,
  "weighted_ce": weighted_ce,
  "focal": focal,
}

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
) -> tuple[Array, dict[str, Array]]:
  """Weighted sum of loss terms.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].
    weights: weight by term, for example `{"dice": 1.0, "bce": 1.0}`; the names are those of
      `LOSSES`.
    class_weights: of `weighted_ce`.
    focal_gamma: of `focal`.
    tversky_alpha: of `tversky`.
    tversky_beta: of `tversky`.

  Returns:
    the sum (a scalar) and each term without its weight.

  Raises:
    ValueError: no term, an unknown term, or shapes that do not fit.
  """
  unknown = sorted(set(weights) - set(LOSSES))
  if unknown or not weights:
    fault = f"unknown loss term {', '.join(unknown)}" if unknown else "no loss term"
    raise ValueError(f"{fault}; known terms: {', '.join(LOSSES)}")
  options: dict[str, dict[str, Any]] = {
    "weighted_ce": {"class_weights": class_weights},
    "focal": {"gamma": focal_gamma},
    "tversky": {"alpha": tversky_alpha, "beta": tversky_beta},
  }
  terms = {name: LOSSES[name](logits, labels, **options.get(name, {})) for name in weights}
  return jnp.sum(jnp.stack([weights[name] * term for name, term in terms.items()])), terms


def _dice_sums(logits: Array, labels: Array) -> tuple[Array, Array]:
  """Per sample and class [N, K]: sum(p g), and sum(p) + sum(g)."""
  logits = _checked(logits, labels)
  probability = jax.nn.softmax(logits)
  truth = _is_class(logits, labels).astype(logits.dtype)
  voxels = (1, 2, 3)
  return jnp.sum(probability * truth, voxels), jnp.sum(probability + truth, voxels)


def _labelled(logits: Array, labels: Array) -> tuple[Array, Array]:
  """Softmax and one-hot label, [N, X, Y, Z, K], both zero at `UNLABELLED` voxels."""
  logits = _checked(logits, labels)
  known = (labels != UNLABELLED)[..., None]
  probability = jnp.where(known, jax.nn.softmax(logits), 0)
  return probability, _is_class(logits, labels).astype(logits.dtype)


def _is_class(logits: Array, labels: Array) -> Array:
  """One-hot labels as booleans, shape of the logits."""
  return labels[..., None] == jnp.arange(logits.shape[-1])


def _checked(logits: Array, labels: Array) -> Array:
  """Logits in at least float32, once the shapes are known to fit."""
  if logits.ndim != 5 or logits.shape[-1] < 2 or logits.shape[:-1] != labels.shape:
    raise ValueError(
      f"logits {logits.shape} and labels {labels.shape} do not fit: "
      "expected [N, X, Y, Z, K] with K >= 2, and [N, X, Y, Z]"
    )
  return logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
