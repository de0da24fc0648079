"""The losses by name, and what can be set about each. Loads no JAX.

A new loss is a function in a file of its own and a line of `LOSSES` here; where it takes options, a
dataclass of them. One that lies outside the package is named by its import path.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from attn_unet_jax.runtime.options import BELOW_ONE, NOT_NEGATIVE, Options, option


@dataclass(frozen=True)
class NoOptions(Options):
  """The options of a loss that has none."""


@dataclass(frozen=True)
class ClassWeightOptions(Options):
  """The options of `weighted_ce`."""

  class_weights: tuple[float, ...] = option(
    (), "Weights of the classes, background first; (): all 1."
  )


@dataclass(frozen=True)
class BalanceOptions(Options):
  """The options of `balanced_bce` and `side_bce`."""

  foreground: float = option(
    0.0, "Foreground fraction of the training set; 0: each patch's, each slice's own.", BELOW_ONE
  )


@dataclass(frozen=True)
class FocalOptions(Options):
  """The options of `focal`."""

  gamma: float = option(2.0, "Exponent; 0 is plain cross-entropy.", NOT_NEGATIVE, key="focal_gamma")


@dataclass(frozen=True)
class TverskyOptions(Options):
  """The options of `tversky`."""

  alpha: float = option(0.3, "Weight of false positives.", NOT_NEGATIVE, key="tversky_alpha")
  beta: float = option(0.7, "Weight of false negatives.", NOT_NEGATIVE, key="tversky_beta")


class LossEntry(NamedTuple):
  """A line of the registry.

  Attributes:
    function: its import path.
    doc: its meaning, in one line.
    options: the dataclass of what can be set about it.
    over_batch: whether it is a sum or mean over the whole batch, not the mean of the samples'
      losses.
    reads_sides: whether it reads the side outputs of `hnn`, not the logits.
    takes_shares: whether labels may be soft, `data.label_resampling=occupancy`.
    partial: how it takes partial labels: `voxels`, once the probabilities are added up; `classes`,
      as a mean over classes, of which only those that a sample's data set labels count; '': not.
  """

  function: str
  doc: str
  options: type[Options] = NoOptions
  over_batch: bool = False
  reads_sides: bool = False
  takes_shares: bool = False
  partial: str = ""


# Import paths, not functions: naming a loss loads no JAX.
_CE, _DICE = "attn_unet_jax.losses.cross_entropy", "attn_unet_jax.losses.dice"

LOSSES: dict[str, LossEntry] = {
  "dice": LossEntry(
    f"{_DICE}:soft_dice",
    "Soft Dice of the foreground classes.",
    takes_shares=True,
    partial="classes",
  ),
  "bce": LossEntry(
    f"{_CE}:binary_cross_entropy",
    "Binary cross-entropy of foreground against background.",
    takes_shares=True,
    partial="voxels",
  ),
  "ce": LossEntry(f"{_CE}:cross_entropy", "Cross-entropy over all classes.", partial="voxels"),
  "reference_dice": LossEntry(
    f"{_DICE}:reference_dice", "The released Attention U-Net's Dice.", takes_shares=True
  ),
  "squared_dice": LossEntry(f"{_DICE}:squared_dice", "V-Net's Dice.", partial="classes"),
  "vnet_caffe_dice": LossEntry(
    "attn_unet_jax.losses.vnet_caffe:vnet_caffe_dice",
    "The released V-Net's: hard Dice with a gradient of its own.",
    over_batch=True,
  ),
  "dice_hinge": LossEntry(
    f"{_DICE}:dice_hinge", "Dense V-Net's: squared Dice, and penalties on lost classes."
  ),
  "balanced_bce": LossEntry(
    f"{_CE}:balanced_bce",
    "bce with foreground and background balanced by their sizes.",
    BalanceOptions,
  ),
  "side_bce": LossEntry(
    "attn_unet_jax.losses.side:side_bce",
    "hnn: balanced_bce of every side output of every view, by slices.",
    BalanceOptions,
    reads_sides=True,
  ),
  "generalised_dice": LossEntry(
    f"{_DICE}:generalised_dice", "Dice with classes weighted by their inverse squared volume."
  ),
  "tversky": LossEntry(
    f"{_DICE}:tversky_loss",
    "Dice with false positives and negatives weighted apart.",
    TverskyOptions,
    partial="classes",
  ),
  "weighted_ce": LossEntry(
    f"{_CE}:weighted_ce",
    "Cross-entropy by class_weights, over labelled voxels.",
    ClassWeightOptions,
    over_batch=True,
  ),
  "focal": LossEntry(
    f"{_CE}:focal_loss",
    "Cross-entropy with easy voxels played down.",
    FocalOptions,
    over_batch=True,
  ),
}


@dataclass(frozen=True)
class LossTerm:
  """A term of a loss: its name, its weight, its options."""

  name: str
  weight: float
  options: Options = NoOptions()

  @property
  def entry(self) -> LossEntry:
    """The line of the registry, or one that is made for a loss from outside the package."""
    # Nothing is known of a foreign loss: over_batch=True assumes the least of it.
    return LOSSES.get(self.name) or LossEntry(
      self.name, "A loss from outside the package.", over_batch=True
    )

  @property
  def arguments(self) -> Mapping[str, object]:
    """The options as keyword arguments of the function."""
    return dataclasses.asdict(self.options)


@dataclass(frozen=True)
class LossOptions:
  """The terms of a loss that have a weight."""

  # The paper's loss is Dice alone: the variant `paper_loss` of experiments/pancreas.py.
  terms: tuple[LossTerm, ...] = (LossTerm("bce", 1.0), LossTerm("dice", 1.0))

  @property
  def weights(self) -> dict[str, float]:
    """The weight of each term, by name."""
    return {term.name: term.weight for term in self.terms}
