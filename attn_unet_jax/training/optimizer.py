"""The optimiser and its learning rate, from the config."""

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
  """Adam with L2 added to the gradient before the moments (coupled), as the reference's Adam."""
  b1, b2 = config.optimizer.betas
  return optax.chain(
    optax.add_decayed_weights(config.optimizer.weight_decay),
    optax.scale_by_adam(b1, b2),
    optax.scale_by_learning_rate(learning_rate(config)),
  )
