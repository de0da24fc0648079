"""One training step: sample, augment, forward, loss, backward, update. Pure: `(state, data)` in."""

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

_DROPOUT = 2**30  # beside the keys of the patches, which are counted from 0


class BatchPartition(NamedTuple):
  """How devices divide a step.

  Attributes:
    share: each one's share of the batch, before it is cut.
    shares: how many of them the program sees.
    place: where the finished batch lies.
    mean: makes a function of parameters, batch statistics, key and a share of the batch one of the
      whole: the mean of what it gives for the shares.
    groups: parts of the batch that batch normalisation sees as batches of their own.
  """

  shard: Share = take_whole_batch
  num_shards: int = 1
  constrain: Callable[[NetworkInput], NetworkInput] = lambda batch: batch
  reduce_mean: Callable[[GradientFunction], GradientFunction] = lambda of_share: of_share
  norm_groups: int = 1


class NetworkOutput(NamedTuple):
  """What a loss reads: logits, and of some networks further maps, see `losses.side_bce`."""

  logits: Array
  sides: dict[int, Array]


class StepMetrics(NamedTuple):
  """What a step tells: the loss of its batch, and the norm of its gradient. Scalars."""

  loss: Array
  gradient_norm: Array


def train_step(
  recipe: TrainingRecipe,
  module: nn.Module,
  state: TrainState,
  feed: StepInput,
  division: BatchPartition = BatchPartition(),  # noqa: B008 (immutable)
) -> tuple[TrainState, StepMetrics]:
  """The state after one step, and what the step tells.

  Without a finite loss and gradient there is no update: the step is skipped if `skip_nonfinite`
  allows, and else it changes nothing, its own number included. Further steps then repeat it, so
  whoever looks at the outcome later still finds the state before it. What is fed for another step
  than the state's next changes nothing either.
  """
  (loss, batch_stats), gradient = _loss_and_gradient(recipe, module, state, feed, division)
  updates, opt_state = build_optimizer(recipe).update(gradient, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  after = state.replace(
    step=state.step + 1,
    params=params,
    batch_stats=batch_stats,
    opt_state=opt_state,
    ema=_update_average(recipe, state, {"params": params, "batch_stats": batch_stats}),
  )
  outcome = StepMetrics(loss, optax.tree.norm(gradient))
  due = state.step == (feed.step if isinstance(feed, StreamedBatch) else state.step)
  return _reject_nonfinite(recipe, state, after, outcome, due), outcome


def _loss_and_gradient(
  recipe: TrainingRecipe,
  module: nn.Module,
  state: TrainState,
  feed: StepInput,
  division: BatchPartition,
) -> Any:
  """`(loss, batch statistics), gradient`, each the mean over the parts of the batch."""
  parts = recipe.train.accumulate

  def of_part(number: Array | int) -> Any:
    """The same, of one part of the batch."""

    def share(drawn: Drawn) -> Drawn:
      return division.shard(_take_microbatch(drawn, number, parts))

    batch = make_training_batch(
      recipe, feed, state.step, module.output_margin, share, division.num_shards
    )
    batch = division.constrain(batch)

    def loss_of(
      params: Any, batch_stats: Any, key: Array, batch: NetworkInput
    ) -> tuple[Array, Any]:
      variables = {"params": params, "batch_stats": batch_stats}
      answer, batch_stats = run_forward(module, variables, batch.image, key, division.norm_groups)
      return _compute_loss(recipe, module, answer, batch), batch_stats

    key = _dropout_key(recipe, state.step, number)
    of_share = division.reduce_mean(jax.value_and_grad(loss_of, has_aux=True))
    return of_share(state.params, state.batch_stats, key, batch)

  if parts == 1:
    return of_part(0)

  def add(total: Any, number: Array) -> tuple[Any, None]:
    return jax.tree.map(jnp.add, total, of_part(number)), None

  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_part, 0))
  total, _ = jax.lax.scan(add, zeros, jnp.arange(parts))
  return jax.tree.map(lambda x: x / parts, total)


def _dropout_key(recipe: TrainingRecipe, step: Array, part: Array | int) -> Array:
  """By seed, step and part alone, so that every device drops the same and going on is exact."""
  key = jax.random.fold_in(jax.random.key(recipe.seed), step)
  return jax.random.fold_in(key, _DROPOUT + part)


def _take_microbatch(drawn: Drawn, number: Array | int, parts: int) -> Drawn:
  """Part `number` of the batch; neighbours stay together."""
  if not isinstance(drawn, BatchSample):  # blocks come in parts already
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, number, keepdims=False), drawn)
  size = drawn.case.shape[0] // parts
  return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, number * size, size), drawn)


def _update_average(recipe: TrainingRecipe, state: TrainState, variables: dict[str, Any]) -> Any:
  """The exponential moving average with this step's variables in it.

      ema' = d ema + (1 - d) variables,  d = min(ema_decay, (1 + step) / (10 + step))

  The second term lets the start be forgotten, as in TensorFlow's ExponentialMovingAverage.
  """
  if state.ema is None:
    return None
  early = (1 + state.step) / (10 + state.step)
  decay = jnp.minimum(recipe.optimizer.ema_decay, early)
  return jax.tree.map(
    lambda old, new: old + (1 - decay).astype(old.dtype) * (new - old), state.ema, variables
  )


def _reject_nonfinite(
  recipe: TrainingRecipe, before: TrainState, after: TrainState, outcome: StepMetrics, due: Array
) -> TrainState:
  sound = due & jnp.isfinite(outcome.loss) & jnp.isfinite(outcome.gradient_norm)
  skip = (due & (before.skipped < recipe.train.skip_nonfinite)).astype(jnp.int32)
  kept = before.replace(step=before.step + skip, skipped=before.skipped + skip)
  return jax.tree.map(lambda new, old: jnp.where(sound, new, old), after, kept)


def run_forward(
  module: nn.Module, variables: Any, image: Array, key: Array, groups: int
) -> tuple[NetworkOutput, Any]:
  """The answer, and the new running statistics: the mean of those that each group gives."""

  def of_group(image: Array) -> tuple[NetworkOutput, Any]:
    (logits, out), changed = module.apply(
      variables, image, train=True, mutable=["batch_stats"], rngs={"dropout": key}
    )
    return _make_output(logits, out), changed.get("batch_stats", {})

  if groups == 1:
    return of_group(image)
  answers, batch_stats = jax.vmap(of_group)(image.reshape(groups, -1, *image.shape[1:]))
  mean = jax.tree.map(lambda x: x.mean(0), batch_stats)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), answers), mean


def _make_output(logits: Array, out: Any) -> NetworkOutput:
  return NetworkOutput(logits, out.get("side_logits", {}))


def fixed_loss(
  recipe: TrainingRecipe, module: nn.Module, variables: Any, batch: NetworkInput
) -> Array:
  """Loss of a batch that is not trained on, with running batch-norm statistics."""
  logits, out = module.apply(variables, batch.image, train=False)
  return _compute_loss(recipe, module, _make_output(logits, out), batch)


def _compute_loss(
  recipe: TrainingRecipe, module: nn.Module, answer: NetworkOutput, batch: NetworkInput
) -> Array:
  """Sum of the configured terms, over the voxels that the network's output covers."""
  x, y, z = (
    slice(m, n - m) for m, n in zip(module.output_margin, batch.label.shape[1:], strict=True)
  )
  label = batch.label[:, x, y, z]
  total, _ = sum_terms(recipe.loss.terms, answer.logits, label, answer.sides)
  return total
