"""Histogram matching against hand-computed values and by what it does to a whole scan."""

import jax
import jax.numpy as jnp
import numpy as np

from attn_unet_jax.augment.histogram import is_matched, match_histogram
from attn_unet_jax.volumes.intensity import measure_quantiles


def matched(values, own, reference):
  arrays = (jnp.asarray(a, jnp.float32) for a in (values, own, reference))
  return np.asarray(jax.jit(match_histogram)(*arrays))


def test_by_hand():
  """Minimum, median and maximum 0, 10, 20 become 100, 200, 400."""
  values, expected = [0, 5, 10, 15, 20], [100, 150, 200, 300, 400]
  np.testing.assert_allclose(matched(values, [0, 10, 20], [100, 200, 400]), expected)


def test_a_value_of_many_ranks_goes_to_their_middle():
  """Air has the ranks 0 to 1/2: it becomes what the reference has at 1/4, and stays air there."""
  own, reference = [-1000, -1000, -1000, 0, 100], [-900, -800, 20, 50, 150]
  expected = [-800, -375, 50, 100, 150]  # -500 lies half way from -1000 to 0
  np.testing.assert_allclose(matched([-1000, -500, 0, 50, 100], own, reference), expected)


def test_the_quantiles_of_a_matched_scan_are_the_references():
  rng = np.random.default_rng(0)
  levels = 17
  draw = [rng.permutation(8 * (levels - 1) + 1) for _ in range(2)]
  scan, other = (draw[0] * 7 - 300).astype(np.int16), (draw[1] ** 2 // 9 - 1000).astype(np.int16)
  wanted = measure_quantiles(other, levels)
  ours = matched(scan, measure_quantiles(scan, levels), wanted)
  np.testing.assert_allclose(np.quantile(ours, np.linspace(0, 1, levels)), wanted, rtol=1e-5)
  np.testing.assert_array_equal(np.argsort(ours), np.argsort(scan))


def test_as_often_as_asked():
  keys = jax.random.split(jax.random.key(0), 4000)
  draw = jax.jit(jax.vmap(is_matched, in_axes=(0, None)))
  assert abs(draw(keys, 0.25).mean() - 0.25) < 0.03
  assert draw(keys, 1.0).all()
