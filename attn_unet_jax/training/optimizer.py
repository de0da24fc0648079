"""The optimiser and its learning rate, from the recipe."""

import re
from typing import Any

import jax
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.options import AdamOptions, AdamWOptions, SGDOptions, TrainingRecipe

_FROZEN, _REST = "frozen", "rest"


def build_rate_schedule(recipe: TrainingRecipe) -> optax.Schedule:
  """Rate by step: constant, step decay by epochs, or cosine to zero; each with a linear warm-up."""
  optimizer, train = recipe.optimizer, recipe.train
  peak, total = optimizer.learning_rate, train.epochs * train.steps_per_epoch
  warmup = optimizer.warmup_steps
  if optimizer.schedule == "cosine":
    main = optax.cosine_decay_schedule(peak, max(1, total - warmup))
  elif optimizer.schedule == "step":
    every = optimizer.decay_epochs * train.steps_per_epoch
    main = optax.exponential_decay(peak, every, optimizer.decay_factor, staircase=True)
  else:
    main = optax.constant_schedule(peak)
  if not warmup:
    return main
  return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), main], [warmup])


def build_optimizer(recipe: TrainingRecipe) -> optax.GradientTransformation:
  """The configured optimiser; its decay joins the gradient where the method's name says.

  `adam` and `sgd` add the L2 to the gradient before the moments (coupled: the reference's Adam, and
  Caffe's SGD), `adamw` after them. Biases may have a rate of their own and no decay; parameters
  whose path matches a pattern may have a factor on their rate, or stay as they are.
  """
  optimizer = recipe.optimizer
  mask = None if optimizer.decay_biases else _mark_non_biases
  decay = optax.add_decayed_weights(optimizer.weight_decay, mask)
  if isinstance(optimizer, SGDOptions):
    steps = [decay, optax.trace(optimizer.momentum, optimizer.nesterov)]
  elif isinstance(optimizer, AdamOptions):
    steps = [decay, optax.scale_by_adam(*optimizer.betas)]
  else:
    raise TypeError(f"no optimiser has {type(optimizer).__name__}")
  if isinstance(optimizer, AdamWOptions):
    steps.reverse()
  if optimizer.bias_rate != 1:
    steps.append(optax.masked(optax.scale(optimizer.bias_rate), _mark_biases))
  if optimizer.layer_rates or recipe.init.freeze:
    steps.append(_scale_by_layer(recipe))
  return optax.chain(*steps, optax.scale_by_learning_rate(build_rate_schedule(recipe)))


def _mark_biases(params: Any) -> Any:
  """Tree of booleans: which parameters are biases, batch normalisation's shift included."""
  # By its end: `dual_attention` has `spatial_bias` and `channel_bias` beside its kernels.
  return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key.endswith("bias"), params)


def _mark_non_biases(params: Any) -> Any:
  return jax.tree.map(lambda bias: not bias, _mark_biases(params))


def check_patterns(recipe: TrainingRecipe, params: Any) -> None:
  """Refuses patterns that do nothing, and a network of which nothing is trained.

  Args:
    recipe: what the training reads.
    params: the network's parameters, or their shapes.

  Raises:
    UserError: a pattern matches no parameter, or `init.freeze` all of them.
  """
  names = list(flatten_dict(params, sep="/"))
  for key, pattern in (
    ("init.freeze", recipe.init.freeze),
    *(("optimizer.layer_rates", pattern) for pattern, _ in recipe.optimizer.layer_rates),
  ):
    if pattern and not any(re.search(pattern, name) for name in names):
      raise UserError(
        f"config.{key}: {pattern!r} is found in no parameter's path; they are {names[0]}, "
        f"{names[1]}, ... {names[-1]}"
      )
  if recipe.init.freeze and all(re.search(recipe.init.freeze, name) for name in names):
    raise UserError(f"config.init.freeze={recipe.init.freeze!r}: freezes every parameter")


def _scale_by_layer(recipe: TrainingRecipe) -> optax.GradientTransformation:
  """Factors on the updates by parameter path; of several patterns the first counts."""
  rates = recipe.optimizer.layer_rates
  patterns = [(recipe.init.freeze, _FROZEN)] if recipe.init.freeze else []
  patterns += [(pattern, str(index)) for index, (pattern, _) in enumerate(rates)]
  transforms = {str(index): optax.scale(factor) for index, (_, factor) in enumerate(rates)}

  def labels(params: Any) -> Any:
    names = flatten_dict(params, sep="/")
    found = {
      name: next((label for pattern, label in patterns if re.search(pattern, name)), _REST)
      for name in names
    }
    return unflatten_dict(found, sep="/")

  fixed = {_FROZEN: optax.set_to_zero(), _REST: optax.identity()}
  return optax.multi_transform({**transforms, **fixed}, labels)
