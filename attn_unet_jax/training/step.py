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
  """How devices divide a step.

  Attributes:
    share: each one's share of the batch, before it is cut.
    place: where the finished batch lies.
    mean: over the shares, where a program sees its own share only.
    groups: parts of the batch that batch normalisation sees as batches of their own.
  """

  share: Share = whole
  place: Callable[[Batch], Batch] = lambda batch: batch
  mean: Callable[[Any], Any] = lambda tree: tree
  groups: int = 1


def train_step(
  config: ConfigDict,
  module: nn.Module,
  state: TrainState,
  data: Resident,
  division: Division = Division(),  # noqa: B008 (immutable)
) -> tuple[TrainState, Array]:
  """The state after one step, and the loss of its batch."""
  batch = training_batch(config, data, state.step, module.output_margin, division.share)
  batch = division.place(batch)

  def loss_of(params: Any) -> tuple[Array, Any]:
    variables = {"params": params, "batch_stats": state.batch_stats}
    logits, batch_stats = forward(module, variables, batch.image, division.groups)
    return _loss(config, module, logits, batch), batch_stats

  (loss, batch_stats), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.params)
  loss, gradient, batch_stats = division.mean((loss, gradient, batch_stats))
  updates, opt_state = optimizer(config).update(gradient, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  return TrainState(state.step + 1, params, batch_stats, opt_state), loss


def forward(module: nn.Module, variables: Any, image: Array, groups: int) -> tuple[Array, Any]:
  """Logits, and the new running statistics: the mean of those that each group gives."""

  def of_group(image: Array) -> tuple[Array, Any]:
    (logits, _), changed = module.apply(variables, image, train=True, mutable=["batch_stats"])
    return logits, changed.get("batch_stats", {})

  if groups == 1:
    return of_group(image)
  logits, batch_stats = jax.vmap(of_group)(image.reshape(groups, -1, *image.shape[1:]))
  mean = jax.tree.map(lambda x: x.mean(0), batch_stats)
  return logits.reshape(-1, *logits.shape[2:]), mean


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
