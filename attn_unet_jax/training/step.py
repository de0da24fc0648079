"""One training step: sample, augment, forward, loss, backward, update. Pure: `(state, data)` in."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from attn_unet_jax import losses
from attn_unet_jax.data.patches import Batch, Share, training_batch, whole
from attn_unet_jax.data.resident import Resident
from attn_unet_jax.training.optimizer import optimizer
from attn_unet_jax.training.state import TrainState

Array = jax.Array


class Division(NamedTuple):
  """How devices divide a step: each one's share of the batch, and the mean over the shares."""

  share: Share = whole
  mean: Callable[[Any], Any] = lambda tree: tree


def train_step(
  config: ConfigDict,
  module: nn.Module,
  state: TrainState,
  data: Resident,
  division: Division = Division(),  # noqa: B008 (immutable)
) -> tuple[TrainState, Array]:
  """The state after one step, and the loss of its batch."""
  batch = training_batch(config, data, state.step, module.output_margin, division.share)

  def loss_of(params: Any) -> tuple[Array, Any]:
    (logits, _), changed = module.apply(
      {"params": params, "batch_stats": state.batch_stats},
      batch.image,
      train=True,
      mutable=["batch_stats"],
    )
    return _loss(config, module, logits, batch), changed.get("batch_stats", {})

  (loss, batch_stats), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
  loss, gradient = division.mean((loss, gradient))
  updates, opt_state = optimizer(config).update(gradient, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  return TrainState(state.step + 1, params, batch_stats, opt_state), loss


def fixed_loss(config: ConfigDict, module: nn.Module, variables: Any, batch: Batch) -> Array:
  """Loss of a batch that is not trained on, with running batch-norm statistics."""
  logits, _ = module.apply(variables, batch.image, train=False)
  return _loss(config, module, logits, batch)


def _loss(config: ConfigDict, module: nn.Module, logits: Array, batch: Batch) -> Array:
  """Sum of the configured terms, over the voxels that the network's output covers."""
  x, y, z = (
    slice(m, n - m) for m, n in zip(module.output_margin, batch.label.shape[1:], strict=True)
  )
  weights = {k: w for k, w in config.loss.items() if w}
  total, _ = losses.total(logits, batch.label[:, x, y, z], weights, **config.loss_options)
  return total
