"""The options of scoring. Loads no JAX."""

from dataclasses import dataclass
from typing import Literal, get_args

from attn_unet_jax.inference.options import PredictionRecipe
from attn_unet_jax.runtime.options import Options, Rule, option

EmptyRule = Literal["reference", "either", "one"]

# In words that follow "DSC, IoU, NSD:".
_MEANINGS: dict[EmptyRule, str] = {
  "reference": "of cases whose reference has the class",
  "either": "of cases whose reference or prediction has the class",
  "one": "of all cases, 1 where neither reference nor prediction has the class",
}
EMPTY_RULES = get_args(EmptyRule)


def _is_tolerance(value: object) -> bool:
  # A tuple's type says nothing of what is in it.
  return isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0


@dataclass(frozen=True)
class EvaluationOptions(Options):
  """The options of scoring, in validation and in the test."""

  # By default a mean DSC speaks of cases with the organ. False alarms are counted beside it.
  empty_masks: EmptyRule = option(
    "reference",
    "Cases with a DSC: whose reference has the class; either: or prediction; one: all, 1 if none.",
  )
  nsd_mm: tuple[float, ...] = option(
    (2.0, 3.0),
    "Tolerances of the normalised surface dice (NSD), mm; a score for each.",
    Rule("distances of at least 0 mm", _is_tolerance),
  )


@dataclass(frozen=True)
class ScoringRecipe(PredictionRecipe):
  """The options that scoring a prediction reads.

  Attributes:
    evaluation: the rules of the scores.
  """

  evaluation: EvaluationOptions = EvaluationOptions()


def describe_rule(empty: EmptyRule) -> str:
  """Describes a rule for empty masks in words, with its name."""
  return f"DSC, IoU, NSD: {_MEANINGS[empty]} (empty_masks={empty})"
