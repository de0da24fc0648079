"""The step for every network, traced; and what of a label an unpadded network is held to."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attn_unet_jax import losses, models
from attn_unet_jax.data.patches import Batch
from attn_unet_jax.data.prepare import WorkingCase
from attn_unet_jax.data.resident import resident
from attn_unet_jax.models import layers
from attn_unet_jax.training.state import abstract, network
from attn_unet_jax.training.step import fixed_loss, forward, train_step

NAMES = ("attention_unet", "unet", "unet3d", "vnet", "vnet_caffe")


@pytest.mark.parametrize("name", NAMES)
def test_a_step_keeps_the_states_shape(config, name):
  """Also of networks without batch statistics, and with a patch that is larger than the output."""
  config.model.name = name
  config.optimizer.name = "sgd"
  config.optimizer.bias_rate, config.optimizer.decay_biases = 2.0, False
  config.data.patch = models.nearest_patch(models.build(name), (16, 16, 16))
  module = network(config, 2)
  image = np.zeros((100, 95, 93), np.int16)
  case = WorkingCase("a", image, image.astype(np.uint8), 0.0, 1.0)
  data = resident([case], config.data.patch)
  state = abstract(config, module)
  after, loss = jax.eval_shape(lambda s, d: train_step(config, module, s, d), state, data)
  assert loss.shape == ()
  assert jax.tree.structure(after) == jax.tree.structure(state)
  assert jax.tree.leaves(after) == jax.tree.leaves(state)
  assert bool(state.batch_stats) == (not name.startswith("vnet"))


class _Unpadded(nn.Module):
  """The image's own values as the second class's logits, less a margin."""

  output_margin = (1, 2, 0)

  @nn.compact
  def __call__(self, x, train):
    del train
    inner = x[:, 1:-1, 2:-2]
    return jnp.concatenate([jnp.zeros_like(inner), inner], -1), {}


class _Alone(nn.Module):
  """A block as a network."""

  block: nn.Module

  @nn.compact
  def __call__(self, x, train):
    return self.block(x, train), {}


def test_labels_are_cropped_to_the_networks_output(config):
  rng = np.random.default_rng(0)
  image = jnp.asarray(rng.normal(size=(2, 4, 6, 3, 1)), jnp.float32)
  label = jnp.asarray(rng.integers(0, 2, (2, 4, 6, 3)), jnp.uint8)
  logits, _ = _Unpadded().apply({}, image, False)
  expected = losses.total(logits, label[:, 1:3, 2:4], {"dice": 1.0, "bce": 1.0})[0]
  assert fixed_loss(config, _Unpadded(), {}, Batch(image, label)) == expected


def test_groups_have_batch_statistics_of_their_own():
  """Two groups of one batch, against each group by itself."""
  block = layers.ConvBlock(2, form="native")
  module = _Alone(block)
  x = jax.random.normal(jax.random.key(0), (4, 3, 2, 2, 1))
  variables = module.init(jax.random.key(1), x, train=True)
  together, statistics = forward(module, variables, x, 2)
  apart = [forward(module, variables, part, 1) for part in jnp.split(x, 2)]
  np.testing.assert_allclose(together, jnp.concatenate([y for y, _ in apart]), atol=1e-6)
  mean = jax.tree.map(lambda a, b: (a + b) / 2, *(changed for _, changed in apart))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), statistics, mean)
  assert jnp.abs(together - forward(module, variables, x, 1)[0]).max() > 1e-3
