"""The optimiser and its learning rate, from the config."""

from typing import Any

import jax
import optax
from ml_collections import ConfigDict


def learning_rate(config: ConfigDict) -> optax.Schedule:
  """Rate by step: constant, step decay by epochs, or cosine to zero; each with a linear warm-up."""
  optimizer, train = config.optimizer, config.train
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


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
  """The configured optimiser; its decay joins the gradient where the method's name says.

  `adam` and `sgd` add the L2 to the gradient before the moments (coupled: the reference's Adam, and
  Caffe's SGD), `adamw` after them. Biases may have a rate of their own and no decay.
  """
  optimizer = config.optimizer
  mask = None if optimizer.decay_biases else _no_biases
  decay = optax.add_decayed_weights(optimizer.weight_decay, mask)
  if optimizer.name == "sgd":
    steps = [decay, optax.trace(optimizer.momentum, optimizer.nesterov)]
  else:
    steps = [decay, optax.scale_by_adam(*optimizer.betas)]
  if optimizer.name == "adamw":
    steps.reverse()
  if optimizer.bias_rate != 1:
    steps.append(optax.masked(optax.scale(optimizer.bias_rate), _biases))
  return optax.chain(*steps, optax.scale_by_learning_rate(learning_rate(config)))


def _biases(params: Any) -> Any:
  """Tree of booleans: which parameters are biases, batch normalisation's shift included."""
  return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "bias", params)


def _no_biases(params: Any) -> Any:
  return jax.tree.map(lambda bias: not bias, _biases(params))
