"""Computes one training step: sample, augment, forward, loss, backward, update.

All functions are pure, so that the step can be compiled for any division over devices.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from attn_unet_jax.losses.total import sum_terms
from attn_unet_jax.patches.batch import (
  Drawn,
  NetworkInput,
  Share,
  StepInput,
  StreamedBatch,
  make_training_batch,
  take_whole_batch,
)
from attn_unet_jax.patches.schedule import BatchSample
from attn_unet_jax.training.optimizer import build_optimizer
from attn_unet_jax.training.options import TrainingRecipe
from attn_unet_jax.training.state import TrainState

Array = jax.Array
# Parameters, batch statistics, key and batch -> ((loss, batch statistics), gradient).
GradientFunction = Callable[[Any, Any, Array, NetworkInput], Any]

# Patches fold their numbers, from 0, into the key of the step. Dropout counts from here, so that no
# key is used twice.
_DROPOUT = 2**30


class BatchPartition(NamedTuple):
  """A division of the batch over devices; the default is one device.

  Attributes:
    shard: takes a device's shard of the drawn batch, before its patches are cropped.
    num_shards: the number of shards that one program sees.
    constrain: places the finished batch on the devices.
    reduce_mean: turns a function of parameters, batch statistics, key and a shard into one of the
      whole batch, which returns the mean of the results for all shards.
    norm_groups: the number of groups that batch normalisation treats as batches of their own.
  """

  shard: Share[Any] = take_whole_batch
  num_shards: int = 1
  constrain: Callable[[NetworkInput], NetworkInput] = lambda batch: batch
  reduce_mean: Callable[[GradientFunction], GradientFunction] = lambda of_shard: of_shard
  norm_groups: int = 1


class NetworkOutput(NamedTuple):
  """The output that a loss reads: logits, and side maps of some networks, see `losses/side.py`."""

  logits: Array
  sides: dict[int, Array]


class StepMetrics(NamedTuple):
  """The loss of a step's batch and the norm of its gradient, as scalars."""

  loss: Array
  gradient_norm: Array


def train_step(
  recipe: TrainingRecipe,
  module: nn.Module,
  state: TrainState,
  feed: StepInput,
  partition: BatchPartition = BatchPartition(),  # noqa: B008 (immutable)
) -> tuple[TrainState, StepMetrics]:
  """Returns the state after one step, and the loss and gradient norm of the step.

  A loss or gradient that is not finite causes no update. If `skip_nonfinite` allows it, the step is
  skipped; otherwise the state stays unchanged, its step number included. Later steps then repeat
  that step, so the state before it is still there when the host reads the metrics. Input that was
  made for another step than the next one does not change the state either.
  """
  (loss, batch_stats), gradient = _compute_gradient(recipe, module, state, feed, partition)
  updates, opt_state = build_optimizer(recipe).update(gradient, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  after = state.replace(
    step=state.step + 1,
    params=params,
    batch_stats=batch_stats,
    opt_state=opt_state,
    ema=_update_average(recipe, state, {"params": params, "batch_stats": batch_stats}),
  )
  metrics = StepMetrics(loss, optax.tree.norm(gradient))
  # Streamed input carries its step number. After a step that changed nothing, the inputs of later
  # steps are on their way already and must not be used.
  is_due = state.step == (feed.step if isinstance(feed, StreamedBatch) else state.step)
  return _reject_nonfinite(recipe, state, after, metrics, is_due), metrics


def _compute_gradient(
  recipe: TrainingRecipe,
  module: nn.Module,
  state: TrainState,
  feed: StepInput,
  partition: BatchPartition,
) -> Any:
  """Returns `(loss, batch statistics), gradient`, each the mean over the parts of the batch."""
  num_parts = recipe.train.accumulate

  def differentiate_part(number: Array | int) -> Any:
    """Returns `(loss, batch statistics), gradient` of one part of the batch."""

    def shard_part(drawn: Drawn) -> Drawn:
      """Takes this device's shard of the part."""
      result: Drawn = partition.shard(_take_microbatch(drawn, number, num_parts))
      return result

    batch = make_training_batch(
      recipe, feed, state.step, module.output_margin, shard_part, partition.num_shards
    )
    batch = partition.constrain(batch)

    def differentiable_loss(
      params: Any, batch_stats: Any, key: Array, batch: NetworkInput
    ) -> tuple[Array, Any]:
      """Returns the loss of the part and the new batch statistics."""
      variables = {"params": params, "batch_stats": batch_stats}
      output, batch_stats = run_forward(module, variables, batch.image, key, partition.norm_groups)
      return _compute_loss(recipe, module, output, batch), batch_stats

    key = _make_dropout_key(recipe, state.step, number)
    of_shard = partition.reduce_mean(jax.value_and_grad(differentiable_loss, has_aux=True))
    return of_shard(state.params, state.batch_stats, key, batch)

  if num_parts == 1:
    return differentiate_part(0)

  def add_part(total: Any, number: Array) -> tuple[Any, None]:
    """Adds loss, statistics and gradient of a part to their sums."""
    return jax.tree.map(jnp.add, total, differentiate_part(number)), None

  # From shapes alone: no part is computed twice.
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(differentiate_part, 0))
  # One part after the other: only the activations of one are in memory at a time.
  total, _ = jax.lax.scan(add_part, zeros, jnp.arange(num_parts))
  return jax.tree.map(lambda x: x / num_parts, total)


def _make_dropout_key(recipe: TrainingRecipe, step: Array, part: Array | int) -> Array:
  """Returns the dropout key of a part of a step."""
  # Seed, step and part alone decide, so that all devices drop the same and resuming is exact.
  key = jax.random.fold_in(jax.random.key(recipe.seed), step)
  return jax.random.fold_in(key, _DROPOUT + part)


def _take_microbatch(drawn: Drawn, number: Array | int, num_parts: int) -> Drawn:
  """Takes part `number` of the drawn batch, a run of neighbours."""
  if not isinstance(drawn, BatchSample):  # blocks come in parts already
    result: Drawn = jax.tree.map(
      lambda x: jax.lax.dynamic_index_in_dim(x, number, keepdims=False), drawn
    )
    return result
  size = drawn.case.shape[0] // num_parts
  result = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, number * size, size), drawn)
  return result


def _update_average(recipe: TrainingRecipe, state: TrainState, variables: dict[str, Any]) -> Any:
  """Updates the exponential moving average by the variables of this step.

      ema' = d ema + (1 - d) variables,  d = min(ema_decay, (1 + step) / (10 + step))

  The second term forgets the random start sooner, as in TensorFlow's ExponentialMovingAverage.
  """
  # Off by default; the state then holds no second copy of the parameters.
  if state.ema is None:
    return None
  early = (1 + state.step) / (10 + state.step)
  decay = jnp.minimum(recipe.optimizer.ema_decay, early)
  return jax.tree.map(
    lambda old, new: old + (1 - decay).astype(old.dtype) * (new - old), state.ema, variables
  )


def _reject_nonfinite(
  recipe: TrainingRecipe, before: TrainState, after: TrainState, metrics: StepMetrics, is_due: Array
) -> TrainState:
  """Returns `after`, or `before` where the step must not change the parameters."""
  # Selected on the device, so that the host does not wait for the loss.
  is_accepted = is_due & jnp.isfinite(metrics.loss) & jnp.isfinite(metrics.gradient_norm)
  skip = (is_due & (before.skipped < recipe.train.skip_nonfinite)).astype(jnp.int32)
  unchanged = before.replace(step=before.step + skip, skipped=before.skipped + skip)
  result: TrainState = jax.tree.map(
    lambda new, old: jnp.where(is_accepted, new, old), after, unchanged
  )
  return result


def run_forward(
  module: nn.Module, variables: Any, image: Array, key: Array, groups: int
) -> tuple[NetworkOutput, Any]:
  """Runs the network in training; returns its output and the new running statistics.

  Args:
    module: the network.
    variables: its parameters and batch statistics.
    image: the images, `[N, X, Y, Z, 1]`.
    key: the key of dropout.
    groups: the number of groups with batch statistics of their own; the running statistics are the
      mean over the groups.
  """

  def run_group(image: Array) -> tuple[NetworkOutput, Any]:
    """Runs the network on one group; returns its output and statistics."""
    (logits, out), changed = module.apply(
      variables, image, train=True, mutable=["batch_stats"], rngs={"dropout": key}
    )
    return _make_output(logits, out), changed.get("batch_stats", {})

  if groups == 1:
    return run_group(image)
  # Batch normalisation averages over the batch axis it sees: here that of one group.
  outputs, batch_stats = jax.vmap(run_group)(image.reshape(groups, -1, *image.shape[1:]))
  mean = jax.tree.map(lambda x: x.mean(0), batch_stats)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), outputs), mean


def _make_output(logits: Array, out: Any) -> NetworkOutput:
  return NetworkOutput(logits, out.get("side_logits", {}))


def fixed_loss(
  recipe: TrainingRecipe, module: nn.Module, variables: Any, batch: NetworkInput
) -> Array:
  """Computes the loss of a batch outside training, with running batch-norm statistics."""
  return measure_fixed(recipe, module, variables, batch)[0]


def measure_fixed(
  recipe: TrainingRecipe, module: nn.Module, variables: Any, batch: NetworkInput
) -> tuple[Array, dict[str, Array], Array]:
  """Computes `fixed_loss`, and what else of the same forward pass is looked at.

  Returns:
    the loss, the coefficients of each gate `[N, x, y, z]` on its own grid (of one that has a
    coefficient for each channel their mean), and the most probable class of each voxel, uint8.
  """
  logits, out = module.apply(variables, batch.image, train=False)
  gates = {name: one.astype(jnp.float32).mean(-1) for name, one in out.get("gates", {}).items()}
  classes = jnp.argmax(logits, -1).astype(jnp.uint8)
  return _compute_loss(recipe, module, _make_output(logits, out), batch), gates, classes


def _compute_loss(
  recipe: TrainingRecipe, module: nn.Module, output: NetworkOutput, batch: NetworkInput
) -> Array:
  """Sums the configured loss terms over the voxels that the network's output covers."""
  # An unpadded network has no output for the margin of the patch.
  x, y, z = (
    slice(m, n - m) for m, n in zip(module.output_margin, batch.label.shape[1:], strict=True)
  )
  label = batch.label[:, x, y, z]
  named = recipe.data.labelled_sets
  total, _ = sum_terms(recipe.loss.terms, output.logits, label, output.sides, named)
  return total
