import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax.training.checkpoint import checkpoints
from attn_unet_jax.training.state import TrainState


def _state(step):
  params = {"kernel": jnp.full((2, 3), step / 7)}
  return TrainState(jnp.int32(step), params, {"mean": jnp.ones(3)}, (jnp.zeros(2), None))


@pytest.fixture
def store(tmp_path):
  with checkpoints(tmp_path / "checkpoints", keep=2) as opened:
    yield opened


def test_keeps_the_latest_and_the_best(store):
  for step, dsc in ((1, 0.2), (2, 0.9), (3, None), (4, 0.5), (5, 0.1), (6, None)):
    store.save(_state(step), dsc)
  store.close()
  assert sorted(int(p.name) for p in store.folder.iterdir() if p.name.isdigit()) == [2, 5, 6]
  assert store.latest == 6
  assert store.best == 2


def test_best_is_the_latest_without_validation(store):
  assert store.latest is None
  assert store.best is None
  store.save(_state(3))
  store.save(_state(8))
  assert store.best == 8


def test_restores_the_same_bits(store):
  store.save(_state(5), 0.3)
  like = jax.eval_shape(lambda: _state(5))
  restored = store.restore(5, like)
  assert jax.tree.structure(restored) == jax.tree.structure(_state(5))
  for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(_state(5)), strict=True):
    np.testing.assert_array_equal(a, b)
    assert a.dtype == b.dtype


def test_a_saved_step_gains_its_validation(store):
  store.save(_state(5), 0.3)
  store.save(_state(6))
  store.save(_state(6), 0.8)
  assert store.best == 6


def test_a_step_is_saved_once(store):
  store.save(_state(5), 0.3)
  store.save(_state(5))
  assert store.best == 5
