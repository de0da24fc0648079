"""Segmentation losses: one pure function per loss, and `total`, which sums the configured terms.

Every loss maps logits `[N, X, Y, Z, K]` and integer labels `[N, X, Y, Z]` in `0..K-1` (0 is the
background) to a scalar. Logits of a lower precision than float32 are computed on in float32;
float64 stays float64, so that gradients can be checked. A label outside `0..K-1` counts as no
class: it adds nothing to the Dice sums and to the cross-entropy.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import Array

SMOOTHING = 1e-5
REFERENCE_SMOOTHING = 0.01


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


LOSSES: Mapping[str, Callable[[Array, Array], Array]] = {
  "dice": soft_dice,
  "bce": binary_cross_entropy,
  "ce": cross_entropy,
  "reference_dice": reference_dice,
}


def total(
  logits: Array, labels: Array, weights: Mapping[str, float]
) -> tuple[Array, dict[str, Array]]:
  """Weighted sum of loss terms.

  Args:
    logits: [N, X, Y, Z, K], K >= 2.
    labels: integers [N, X, Y, Z].
    weights: weight by term, for example `{"dice": 1.0, "bce": 1.0}`; the names are those of
      `LOSSES`.

  Returns:
    the sum (a scalar) and each term without its weight.

  Raises:
    ValueError: no term, an unknown term, or shapes that do not fit.
  """
  unknown = sorted(set(weights) - set(LOSSES))
  if unknown or not weights:
    fault = f"unknown loss term {', '.join(unknown)}" if unknown else "no loss term"
    raise ValueError(f"{fault}; known terms: {', '.join(LOSSES)}")
  terms = {name: LOSSES[name](logits, labels) for name in weights}
  return jnp.sum(jnp.stack([weights[name] * term for name, term in terms.items()])), terms


def _dice_sums(logits: Array, labels: Array) -> tuple[Array, Array]:
  """Per sample and class [N, K]: sum(p g), and sum(p) + sum(g)."""
  logits = _checked(logits, labels)
  probability = jax.nn.softmax(logits)
  truth = _is_class(logits, labels).astype(logits.dtype)
  voxels = (1, 2, 3)
  return jnp.sum(probability * truth, voxels), jnp.sum(probability + truth, voxels)


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
