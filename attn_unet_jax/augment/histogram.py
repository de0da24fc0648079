"""Histogram matching: an image takes on the intensities of another scan."""

import jax
import jax.numpy as jnp
from jax import Array


def match_histogram(image: Array, own: Array, reference: Array) -> Array:
  """Intensities mapped so that the scan's quantiles become the reference's.

      match(v) = F_reference^-1(F_own(v)),  linear between the quantiles that are given

  A value that fills several quantiles, such as air's, stands for the middle of its ranks: it goes
  to the middle of where they go, and not to their end, which would make tissue of it wherever the
  reference holds less air.

  Args:
    image: any part of the scan, floating point, any shape.
    own: quantiles of the whole scan at the levels 0, 1 / (Q - 1), ..., 1, ascending [Q].
    reference: those of the other scan [Q].

  Returns:
    The shape and type of `image`.
  """
  levels = jnp.linspace(0, 1, own.shape[0], dtype=own.dtype)
  last = jnp.searchsorted(own, own, side="right") - 1
  first = jnp.searchsorted(own, own, side="left")
  middle = (levels[first] + levels[last]) / 2
  return jnp.interp(image, own, jnp.interp(middle, levels, reference)).astype(image.dtype)


def is_matched(key: Array, probability: float) -> Array:
  """Whether a patch takes on another scan's intensities, `[]` bool.

  Args:
    key: of the patch's augmentation; no other draw of it changes.
    probability: static.
  """
  return jax.random.bernoulli(jax.random.fold_in(key, 4), probability)
