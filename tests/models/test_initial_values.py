"""Values in blocks are those that JAX and Flax draw for each parameter by itself, to the bit."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.linen.initializers import variance_scaling as flax_scaling

from attn_unet_jax.models import initial_values
from attn_unet_jax.models.initial_values import draw_normal, draw_uniform, mean_fan, scaled_normal
from attn_unet_jax.models.upconv import kaiming_normal as of_windows

KEY = jax.random.key(3, impl="rbg")
# Within a block, a whole block, and one value more.
SHAPES = ((2, 3, 5), (4, 4, 4), (5, 13))


def _draw_as_one_program(init, shape):
  # As one program, in which XLA folds constants; a function of its own for each, so that none is
  # found in a cache.
  return np.asarray(jax.jit(lambda key: init(key, shape, jnp.float32))(KEY))


@pytest.mark.parametrize(
  ("ours", "theirs", "shape"),
  [
    *((scaled_normal(2.0), flax_scaling(2, "fan_in", "normal"), shape) for shape in SHAPES),
    (scaled_normal(2.0, mean_fan), flax_scaling(2, "fan_avg", "normal"), SHAPES[0]),
    (scaled_normal(2.0, truncated=True), nn.initializers.kaiming_normal(), SHAPES[0]),
    (of_windows, flax_scaling(2, "fan_in", "normal", batch_axis=(0, 1, 2)), (2, 2, 2, 3, 4)),
  ],
)
def test_scaled_normals_are_those_of_flax(ours, theirs, shape):
  np.testing.assert_array_equal(
    _draw_as_one_program(ours, shape), _draw_as_one_program(theirs, shape)
  )
  np.testing.assert_array_equal(ours(KEY, shape, jnp.float32), _draw_as_one_program(ours, shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_uniform_values_are_those_of_jax(shape):
  expected = jax.jit(lambda key: jax.random.uniform(key, shape, jnp.float32, -0.3, 0.3))(KEY)
  np.testing.assert_array_equal(draw_uniform(KEY, shape, jnp.float32, -0.3, 0.3), expected)


def test_normal_values_have_their_mean_and_deviation():
  drawn = np.asarray(draw_normal(KEY, (100, 1000), jnp.float32, 1, 0.02), np.float64)
  assert abs(drawn.mean() - 1) < 4 * 0.02 / math.sqrt(drawn.size)
  assert abs(drawn.std() / 0.02 - 1) < 4 / math.sqrt(2 * drawn.size)


def test_few_programs_are_compiled_for_many_shapes():
  initial_values._draw_normal.clear_cache()
  init = scaled_normal(2.0)
  for n in range(1, 20):
    init(KEY, (n, 3), jnp.float32)
  assert initial_values._draw_normal._cache_size() == 1
  init(KEY, (65, 1), jnp.float32)
  assert initial_values._draw_normal._cache_size() == 2
