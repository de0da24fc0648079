"""Builds the optimiser and its learning-rate schedule from the recipe."""

import re
from typing import Any

import jax
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from attn_unet_jax.runtime.errors import UserError
from attn_unet_jax.training.options import AdamOptions, AdamWOptions, SGDOptions, TrainingRecipe

_FROZEN, _REST = "frozen", "rest"


def build_rate_schedule(recipe: TrainingRecipe) -> optax.Schedule:
  """Builds the learning rate by step: constant, step decay by epochs, or cosine decay to zero.

  Each may begin with a linear warm-up from zero.
  """
  optimizer, train = recipe.optimizer, recipe.train
  peak, total = optimizer.learning_rate, train.epochs * train.steps_per_epoch
  warmup = optimizer.warmup_steps
  # `join_schedules` counts the steps of `main` from the end of the warm-up.
  if optimizer.schedule == "cosine":
    # optax refuses a decay of no steps, which a warm-up over the whole training leaves.
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
  """Builds the configured optimiser.

  `adam` and `sgd` add the L2 term to the gradient before the moments (coupled, as the released
  code's Adam and Caffe's SGD do), `adamw` adds it after them. Biases may have their own rate and no
  decay. Parameters whose path matches a pattern may have a factor on their rate, or stay frozen.
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
    steps.reverse()  # the decay comes after the moments: decoupled
  if optimizer.bias_rate != 1:
    steps.append(optax.masked(optax.scale(optimizer.bias_rate), _mark_biases))
  if optimizer.layer_rates or recipe.init.freeze:
    steps.append(_scale_by_layer(recipe))
  return optax.chain(*steps, optax.scale_by_learning_rate(build_rate_schedule(recipe)))


def _mark_biases(params: Any) -> Any:
  """Marks the parameters that are biases, batch normalisation's shift included, by True."""
  # By the end of the name: `dual_attention` has `spatial_bias` and `channel_bias` as well.
  return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key.endswith("bias"), params)


def _mark_non_biases(params: Any) -> Any:
  """Marks all parameters but the biases by True."""
  return jax.tree.map(lambda bias: not bias, _mark_biases(params))


def check_patterns(recipe: TrainingRecipe, params: Any) -> None:
  """Checks that every pattern matches a parameter, and that some parameters are trained.

  Args:
    recipe: the options of the training.
    params: the parameters of the network, or their shapes.

  Raises:
    UserError: a pattern matches no parameter, or `init.freeze` matches all.
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
  """Builds factors on the updates by parameter path; the first pattern that matches counts."""
  rates = recipe.optimizer.layer_rates
  # Frozen comes first: no rate can revive a parameter that is to stay as it is.
  patterns = [(recipe.init.freeze, _FROZEN)] if recipe.init.freeze else []
  patterns += [(pattern, str(index)) for index, (pattern, _) in enumerate(rates)]
  transforms = {str(index): optax.scale(factor) for index, (_, factor) in enumerate(rates)}

  def label_parameters(params: Any) -> Any:
    """Labels each parameter with the first pattern that matches its path."""
    names = flatten_dict(params, sep="/")
    found = {
      name: next((label for pattern, label in patterns if re.search(pattern, name)), _REST)
      for name in names
    }
    return unflatten_dict(found, sep="/")

  fixed = {_FROZEN: optax.set_to_zero(), _REST: optax.identity()}
  # The factor is applied to the updates, after the moments: Adam would undo one on the gradients.
  return optax.multi_transform({**transforms, **fixed}, label_parameters)
