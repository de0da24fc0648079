"""Histogram matching: an image takes on the intensities of another scan."""

import jax
import jax.numpy as jnp
from jax import Array


def match_histogram(image: Array, own: Array, reference: Array) -> Array:
  """Maps intensities so that the scan's quantiles become those of another scan.

      match(v) = F_reference^-1(F_own(v)),  linear between the given quantiles

  Args:
    image: any part of the scan, floating point, any shape.
    own: quantiles of the whole scan at the levels 0, 1 / (Q - 1), ..., 1, ascending [Q].
    reference: quantiles of the other scan at these levels, ascending [Q].

  Returns:
    The shape and type of `image`.
  """
  levels = jnp.linspace(0, 1, own.shape[0], dtype=own.dtype)
  last = jnp.searchsorted(own, own, side="right") - 1
  first = jnp.searchsorted(own, own, side="left")
  # A value that fills several quantiles, such as air, gets the middle of its ranks. The end of its
  # ranks would turn air into tissue wherever the other scan has less air.
  middle = (levels[first] + levels[last]) / 2
  return jnp.interp(image, own, jnp.interp(middle, levels, reference)).astype(image.dtype)


def is_matched(key: Array, probability: float) -> Array:
  """Draws whether a patch takes on the intensities of another scan, a boolean scalar.

  Args:
    key: key of the patch's augmentation.
    probability: static.
  """
  # A key of its own: the draws of `augment_patch`, which get the same key, do not change.
  return jax.random.bernoulli(jax.random.fold_in(key, 4), probability)
