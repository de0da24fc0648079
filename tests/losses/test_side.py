"""The loss on side outputs, against hand-computed values and the same sum written as loops."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from attn_unet_jax.labels import UNLABELLED
from attn_unet_jax.losses import side
from attn_unet_jax.losses.options import BalanceOptions, LossTerm
from attn_unet_jax.losses.total import sum_terms


@pytest.fixture(scope="module")
def case():
  """Two maps a view, [2, 3, 2, 4], with unlabelled voxels."""
  rng = np.random.default_rng(0)
  sides = {axis: rng.normal(size=(2, 3, 2, 4, 2)) for axis in (1, 2, 3)}
  labels = rng.integers(0, 2, (2, 3, 2, 4)).astype(np.uint8)
  labels[0, 1, 1, 2:] = UNLABELLED
  return sides, labels


def test_one_slice_by_hand():
  """Three pixels, one of them foreground: it weighs 2/3, the others 1/3."""
  probabilities = np.array([0.8, 0.4, 0.1])
  maps = {1: jnp.asarray(np.log(probabilities / (1 - probabilities))).reshape(1, 1, 3, 1, 1)}
  labels = jnp.array([1, 0, 0]).reshape(1, 1, 3, 1)
  costs = [-math.log(p) for p in (0.8, 0.6, 0.9)]
  expected = (2 / 3 * costs[0] + 1 / 3 * (costs[1] + costs[2])) / 3
  assert side.side_bce(maps, labels) == pytest.approx(expected, abs=1e-6)
  expected = (0.9 * costs[0] + 0.1 * (costs[1] + costs[2])) / 3
  assert side.side_bce(maps, labels, foreground=0.1) == pytest.approx(expected, abs=1e-6)


def loops(sides, labels, foreground):
  """Voxel by voxel; the balance of each slice along the view's axis."""
  total = 0.0
  for axis, maps in sides.items():
    for sample in range(2):
      known = np.argwhere(labels[sample] != UNLABELLED)
      for v in map(tuple, known):
        plane = labels[sample].take(v[axis - 1], axis - 1)
        plane = plane[plane != UNLABELLED]
        f = foreground or (plane > 0).mean()
        for logit in maps[(sample, *v)]:
          q = 1 / (1 + math.exp(-logit))
          cost = -(1 - f) * math.log(q) if labels[(sample, *v)] else -f * math.log(1 - q)
          total += cost / len(known) / 2
  return total


@pytest.mark.parametrize("foreground", [0.0, 0.02])
def test_all_maps_of_all_views_count(case, foreground):
  with jax.enable_x64(True):
    value = side.side_bce(jax.tree.map(jnp.asarray, case[0]), case[1], foreground=foreground)
  assert float(value) == pytest.approx(loops(*case, foreground), rel=1e-12)


def test_a_slice_without_foreground_costs_nothing_unless_the_balance_is_global(case):
  sides, labels = jax.tree.map(jnp.asarray, case[0]), jnp.zeros_like(case[1])
  assert side.side_bce(sides, labels) == 0
  assert side.side_bce(sides, labels, foreground=0.02) > 0


def test_gradients_and_what_is_unlabelled(case):
  with jax.enable_x64(True):
    sides, labels = jax.tree.map(jnp.asarray, case)
    loss = jax.jit(lambda maps: side.side_bce(maps, labels))
    np.testing.assert_allclose(loss(sides), side.side_bce(sides, labels), rtol=1e-12)
    check_grads(loss, (sides,), order=1, modes=("fwd", "rev"), atol=1e-7, rtol=1e-7)
    for slope in jax.grad(loss)(sides).values():
      assert not slope[labels == UNLABELLED].any()
      assert slope[labels != UNLABELLED].any()


def test_it_is_the_mean_of_its_parts_and_finite_at_extremes(case):
  sides, labels = jax.tree.map(jnp.asarray, case)
  parts = [
    side.side_bce(jax.tree.map(lambda a: a[i : i + 1], sides), labels[i : i + 1])  # noqa: B023
    for i in range(2)
  ]
  np.testing.assert_allclose(side.side_bce(sides, labels), sum(parts) / 2, rtol=1e-6)
  huge = jax.tree.map(lambda a: 1e30 * a.astype(jnp.float32), sides)
  value, slope = jax.value_and_grad(side.side_bce)(huge, labels)
  assert all(jnp.all(jnp.isfinite(a)) for a in [value, *slope.values()])
  halves = jax.tree.map(lambda a: a.astype(jnp.bfloat16), sides)
  assert side.side_bce(halves, labels).dtype == jnp.float32


def test_total_takes_it_and_refuses_other_maps(case):
  sides, labels = jax.tree.map(jnp.asarray, case)
  logits = jnp.zeros((*labels.shape, 2))
  term = LossTerm("side_bce", 2.0, BalanceOptions(0.1))
  value, terms = sum_terms([term], logits, labels, sides)
  assert terms["side_bce"] == side.side_bce(sides, labels, foreground=0.1)
  assert value == pytest.approx(2 * float(terms["side_bce"]))
  with pytest.raises(ValueError, match="only the network hnn"):
    sum_terms([term], logits, labels)
  for other in (labels[:, 1:], jnp.concatenate([labels, labels], 1)):
    with pytest.raises(ValueError, match="do not fit"):
      side.side_bce(sides, other)
