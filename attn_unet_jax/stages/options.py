"""The options of a system of several stages."""

from dataclasses import dataclass

from attn_unet_jax.inference.options import PredictionRecipe
from attn_unet_jax.runtime.options import (
  BELOW_ONE,
  NOT_NEGATIVE,
  POSITIVE,
  Options,
  Rule,
  one_of,
  option,
)


@dataclass(frozen=True)
class StageOptions(Options):
  """The options that choose one network or the stages of Roth et al. 2018, and configure these."""

  count: int = option(
    1, "1: one network; 2: a box, then interior, boundary and a forest in it.", one_of(1, 2)
  )
  # Each inner fold costs three trainings: with two of them a system takes nine.
  inner_folds: int = option(
    2,
    "Inner folds of the training cases, for what the forest learns from.",
    Rule("at least 2", lambda value: value >= 2),
  )
  patch: tuple[int, int, int] = option(
    (0, 0, 0), "Patch of the second stage; zeros: data.patch. A box is at least this.", NOT_NEGATIVE
  )
  foreground: tuple[float, float] = option(
    (0.0, 0.0),
    "Foreground fraction for the losses of interior and boundary; 0: loss_options.foreground.",
    BELOW_ONE,
  )
  box_margin_mm: float = option(0.0, "Margin around what the first stage finds, mm.", NOT_NEGATIVE)
  superpixel_mm: float = option(12.0, "Approximate side of a superpixel, mm.", POSITIVE)


@dataclass(frozen=True)
class StageRecipe(PredictionRecipe):
  """The options that a system of stages reads to segment a scan, beside its networks.

  Attributes:
    stages: the options of the system.
  """

  stages: StageOptions = StageOptions()
