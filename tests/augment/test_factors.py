"""Random factors: below 1 as often as above, uniform on either side."""

import jax
import numpy as np
import pytest

from attn_unet_jax.augment.factors import draw_factor

KEYS = jax.random.split(jax.random.key(0), 4000)


def _draw(bounds):
  return np.asarray(jax.vmap(lambda key: draw_factor(key, bounds))(KEYS))


def test_half_of_the_factors_lie_below_1_however_far_the_ends_are():
  drawn = _draw((0.7, 1.5))
  below, above = drawn[drawn < 1], drawn[drawn >= 1]
  assert abs(len(below) / len(drawn) - 0.5) < 0.03
  assert below.mean() == pytest.approx(0.85, abs=0.01)
  assert above.mean() == pytest.approx(1.25, abs=0.01)
  assert (0.7 <= drawn.min() < 0.705, 1.495 < drawn.max() <= 1.5) == (True, True)


@pytest.mark.parametrize("bounds", [(0.5, 1.0), (1.0, 2.0), (2.0, 4.0)])
def test_on_one_side_of_1_they_are_uniform(bounds):
  drawn = _draw(bounds)
  assert bounds[0] <= drawn.min()
  assert drawn.max() <= bounds[1]
  assert drawn.mean() == pytest.approx(np.mean(bounds), abs=0.03 * (bounds[1] - bounds[0]))
