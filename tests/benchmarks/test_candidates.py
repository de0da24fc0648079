"""What may replace parts of the step computes the same: values, gradients, names of variables."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from attn_unet_jax.models import layers
from attn_unet_jax.models.ops import resize
from benchmarks import candidates
from tests.configs import small_config


@pytest.fixture
def x():
  return jax.random.normal(jax.random.key(0), (2, 4, 3, 5, 6)) * 3 + 1


def test_every_candidate_has_a_place_to_stand_in():
  for name, places in candidates.CANDIDATES.items():
    with candidates.put_in_place(name):
      assert all(getattr(owner, attribute) is other for owner, attribute, other in places)
    assert all(getattr(owner, attribute) is not other for owner, attribute, other in places)


def run_block(variables, x):
  """Two convolutions in training: a weighted sum of the output, and the new statistics."""
  y, changed = layers.ConvBlock(4).apply(variables, x, True, mutable=["batch_stats"])
  return (y * jnp.sin(jnp.arange(y.size)).reshape(y.shape)).sum(), changed["batch_stats"]


def differentiate_block(variables, x):
  def of_both(params, x):
    return run_block({**variables, "params": params}, x)

  return jax.jit(jax.value_and_grad(of_both, (0, 1), has_aux=True))(variables["params"], x)


def test_the_gradient_that_is_masked_twice_is_that_of_the_network(x):
  variables = layers.ConvBlock(4).init(jax.random.key(1), x, True)
  expected = differentiate_block(variables, x)
  with candidates.put_in_place("gradient masked twice"):
    drawn = layers.ConvBlock(4).init(jax.random.key(1), x, True)
    found = differentiate_block(variables, x)
  assert jax.tree.all(jax.tree.map(np.array_equal, drawn, variables))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 2e-4, 2e-4), found, expected)


def test_the_gradient_that_is_masked_twice_holds_in_float64():
  with jax.enable_x64(True):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, 3, 2, 2, 3), jnp.float64)
    scale, bias = (1 + jax.random.normal(key, (3,), jnp.float64) / 3 for key in keys[1:])

    def of_all(x, scale, bias):
      y = candidates.normalise_relu(x, scale, bias)[0]
      return (y * jnp.cos(jnp.arange(y.size)).reshape(y.shape)).sum()

    found = jax.grad(of_all, (0, 1, 2))(x, scale, bias)
    for place, gradient in enumerate(found):
      arguments = [x, scale, bias]
      direction = jnp.sin(1 + jnp.arange(gradient.size)).reshape(gradient.shape)

      def move(by, place=place, arguments=arguments, direction=direction):
        moved = [*arguments]
        moved[place] = moved[place] + by * direction
        return of_all(*moved)

      slope = (move(1e-3) - move(-1e-3)) / 2e-3
      np.testing.assert_allclose((gradient * direction).sum(), slope, 1e-3)


@pytest.mark.parametrize("axis", [1, 2, 3])
@pytest.mark.parametrize("planes", [1, 2, 8])
def test_planes_that_are_padded_apart_lie_as_those_that_are_stacked(x, axis, planes):
  some = [x + r for r in range(planes)]
  expected = resize._interleave(some, axis)
  assert np.array_equal(candidates.interleave_by_padding(some, axis), expected)


def test_one_array_of_parameters_takes_the_same_steps():
  recipe = small_config(**{"optimizer.weight_decay": 1e-2})
  key = jax.random.key(0)
  params = {"a": jax.random.normal(key, (3, 4)), "b": jax.random.normal(key, (5,))}
  updated = []
  for build in (candidates._build_optimizer, candidates.build_flat_optimizer):
    optimizer, after = build(recipe), params
    state = optimizer.init(params)
    for _ in range(2):
      updates, state = optimizer.update(jax.tree.map(jnp.sin, after), state, after)
      after = optax.apply_updates(after, updates)
    updated.append(after)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6), *updated)
  np.testing.assert_allclose(candidates.compute_flat_norm(params), optax.tree.norm(params), 1e-6)
