"""Defines the options of a training: optimiser, epochs, and the division over devices."""

import re
from dataclasses import dataclass
from typing import Any

from attn_unet_jax.losses.options import LossOptions
from attn_unet_jax.patches.options import BatchOptions, PatchRecipe
from attn_unet_jax.runs.writers import WRITERS
from attn_unet_jax.runtime.options import (
  BELOW_ONE,
  NOT_NEGATIVE,
  POSITIVE,
  Options,
  Rule,
  one_of,
  option,
)


def _is_regex(pattern: str) -> bool:
  try:
    re.compile(pattern)
  except re.error:
    return False
  return True


def _are_rates(pairs: tuple[Any, ...]) -> bool:
  # A flag or a stored config may hold any literal, so nothing about its form is certain.
  fits = all(isinstance(pair, tuple) and len(pair) == 2 for pair in pairs)
  fits = fits and all(isinstance(p, str) and isinstance(f, (int, float)) for p, f in pairs)
  return fits and all(factor >= 0 for _, factor in pairs)


_RATES = Rule(
  "pairs of a regex and a factor of at least 0, like (('gating', 0.1),)", _are_rates, whole=True
)
_PATTERNS = Rule(
  "regular expressions", lambda pairs: all(_is_regex(pattern) for pattern, _ in pairs), whole=True
)


@dataclass(frozen=True)
class InitOptions(Options):
  """The options of the start: from which run, and which parameters stay as they are."""

  workdir: str = option(
    "",
    "A run to start from: its best parameters, or those of RUN@STEP; classes matched by name. "
    "Several, with commas: their mean.",
    is_path=True,
  )
  freeze: str = option(
    "",
    "A regex: parameters whose path it matches stay as they are.",
    Rule("regular expressions", _is_regex),
  )


@dataclass(frozen=True)
class OptimizerOptions(Options):
  """The options that all optimisers have: the rate, its schedule and its factors, and the decay."""

  name: str = option("adam", "Optimiser.")
  # Adam at 1e-4 is the paper's. Its released code has since fallen back to SGD at this rate,
  # which hardly learns.
  learning_rate: float = option(1e-4, "Peak learning rate.", POSITIVE)
  weight_decay: float = option(
    1e-6, "adam, sgd: L2 added to the gradient; adamw: decoupled decay.", NOT_NEGATIVE
  )
  decay_biases: bool = option(True, "Whether the decay applies to biases too; V-Net: no.")
  bias_rate: float = option(1.0, "Factor on the rate of every bias; V-Net: 2.", NOT_NEGATIVE)
  layer_rates: tuple[tuple[str, float], ...] = option(
    (), "(regex, factor) pairs on the rate by parameter path; the first match counts.",
    _RATES, _PATTERNS,
  )  # fmt: skip
  schedule: str = option(
    "step", "Schedule of the learning rate.", one_of("constant", "step", "cosine")
  )
  # Half the rate every 250 of 1000 epochs: so say the authors' configs.
  decay_epochs: int = option(
    250, "Epochs between two decays of the rate.", POSITIVE, only_if=("schedule", "step")
  )
  decay_factor: float = option(
    0.5, "Factor on the rate at each decay.", POSITIVE, only_if=("schedule", "step")
  )
  warmup_steps: int = option(0, "Steps of a linear warm-up from zero.", NOT_NEGATIVE)
  ema_decay: float = option(
    0.0, "Decay of averaged parameters, which are used outside training; 0: none.", BELOW_ONE
  )


@dataclass(frozen=True)
class AdamOptions(OptimizerOptions):
  """The options of Adam with L2 added to the gradient (coupled), as the released code uses it."""

  betas: tuple[float, float] = option((0.9, 0.999), "Decay of both moments.", BELOW_ONE)


@dataclass(frozen=True)
class AdamWOptions(AdamOptions):
  """The options of Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

  name: str = option("adamw", "Optimiser.")


@dataclass(frozen=True)
class SGDOptions(OptimizerOptions):
  """The options of stochastic gradient descent with momentum."""

  name: str = option("sgd", "Optimiser.")
  momentum: float = option(0.9, "Momentum.", BELOW_ONE)
  nesterov: bool = option(False, "Whether the momentum looks ahead.")


OPTIMIZERS: dict[str, type[OptimizerOptions]] = {
  "adam": AdamOptions,
  "adamw": AdamWOptions,
  "sgd": SGDOptions,
}


@dataclass(frozen=True)
class TrainOptions(BatchOptions):
  """The options of the batch, with the length of a training and what it saves when."""

  epochs: int = option(1000, "Epochs.", POSITIVE)
  # The paper's 61 training scans of Pancreas-CT, two a step.
  steps_per_epoch: int = option(31, "Steps per epoch.", POSITIVE)
  validate_every: int = option(10, "Epochs between validations on whole scans.", POSITIVE)
  save_every: int = option(10, "Epochs between checkpoints; each validation saves too.", POSITIVE)
  keep: int = option(2, "Latest checkpoints that are kept, beside the best.", POSITIVE)
  writers: tuple[str, ...] = option(
    ("tensorboard",),
    "Where the scalars of each epoch are written, beside metrics.csv.",
    one_of(*WRITERS),
  )
  skip_nonfinite: int = option(
    0, "Updates skipped for a NaN or inf before the run is stopped.", NOT_NEGATIVE
  )


@dataclass(frozen=True)
class ParallelOptions(Options):
  """The options of the division of a step over devices."""

  mode: str = option(
    "jit",
    "jit: one program over a mesh; pmap: each device runs its part.",
    one_of("jit", "pmap"),
  )
  data: int = option(
    0, "Devices, of all hosts, over which the batch is divided; 0: all.", NOT_NEGATIVE
  )
  space: int = option(1, "jit: devices over which each patch is divided, along X.", POSITIVE)
  batch_norm: str = option(
    "global",
    "Statistics of the whole batch; local: of each device's part.",
    one_of("global", "local"),
  )


@dataclass(frozen=True)
class TrainingRecipe(PatchRecipe):
  """The options that a training reads, besides those of its network and its data.

  Attributes:
    init: where parameters come from, and which stay as they are.
    loss: the terms of the loss.
    optimizer: the options of one of `OPTIMIZERS`.
    train: the batch size, the duration, and when what is saved.
    parallel: the division over devices.
  """

  init: InitOptions = InitOptions()
  loss: LossOptions = LossOptions()
  optimizer: OptimizerOptions = AdamOptions()
  train: TrainOptions = TrainOptions()
  parallel: ParallelOptions = ParallelOptions()
