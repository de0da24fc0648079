"""Logits and labels that the tests of losses share."""

import jax.numpy as jnp


def logits_of(*probabilities):
  """Logits [1, V, 1, 1, K] whose softmax is the given probability vectors, one a voxel."""
  return jnp.log(jnp.array(probabilities, jnp.float32))[None, :, None, None, :]


def labels_of(*values):
  return jnp.array(values, jnp.uint8)[None, :, None, None]


TWO = (logits_of((0.8, 0.2), (0.4, 0.6), (0.5, 0.5)), labels_of(0, 1, 1))
