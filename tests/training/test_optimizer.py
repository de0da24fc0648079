import jax.numpy as jnp
import numpy as np
import optax
import pytest

from attn_unet_jax.training.optimizer import learning_rate, optimizer


def test_step_decay_counts_epochs(config):
  config.optimizer.schedule = "step"
  config.optimizer.learning_rate = 1e-4
  config.optimizer.decay_epochs = 2
  config.train.steps_per_epoch = 10
  rate = learning_rate(config)
  assert [float(rate(s)) for s in (0, 19, 20, 40)] == pytest.approx([1e-4, 1e-4, 5e-5, 2.5e-5])


def test_cosine_ends_at_zero_and_warms_up(config):
  config.optimizer.schedule = "cosine"
  config.optimizer.learning_rate = 1.0
  config.optimizer.warmup_steps = 10
  config.train.epochs, config.train.steps_per_epoch = 11, 10
  rate = learning_rate(config)
  assert [float(rate(s)) for s in (0, 5, 10, 60, 110)] == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_constant_stays(config):
  assert float(learning_rate(config)(10**6)) == pytest.approx(config.optimizer.learning_rate)


def test_weight_decay_is_coupled_as_in_the_reference(config):
  """Two steps of Adam on g + L2 * w, by hand."""
  config.optimizer.weight_decay = 0.1
  config.optimizer.learning_rate = 0.01
  transform = optimizer(config)
  w = jnp.array([1.0, -2.0])
  state, hand = transform.init(w), np.array([1.0, -2.0])
  m = v = np.zeros(2)
  for t in (1, 2):
    g = np.array([0.5, 3.0]) * t
    updates, state = transform.update(jnp.array(g), state, w)
    w = optax.apply_updates(w, updates)
    g = g + 0.1 * hand
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
    hand = hand - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
  np.testing.assert_allclose(w, hand, rtol=1e-6)
