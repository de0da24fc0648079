"""What experiment files share: a choice of variants, another loss, no augmentation."""

import dataclasses
from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from attn_unet_jax.augment.options import Augmentation
from attn_unet_jax.losses.options import LOSSES
from attn_unet_jax.runtime.errors import UserError


def choose_variant(
  file: str, variant: str, variants: Mapping[str, Callable[[], ConfigDict]]
) -> ConfigDict:
  """Returns the draft of a variant of an experiment.

  Args:
    file: the experiment's own, for the message.
    variant: what stands after the colon of `--config`; '' if nothing does.
    variants: by name, what makes each.

  Raises:
    UserError: there is no such variant.
  """
  if variant not in variants:
    raise UserError(f"experiments/{file}:{variant}: no such variant; there are {list(variants)}")
  return variants[variant]()


def set_loss(config: ConfigDict, **weights: float) -> None:
  """Makes the loss the weighted sum of these terms, and of no other."""
  # The others are set to 0: a draft begins with the weights of the default loss.
  for name in LOSSES:
    config.loss[name] = weights.pop(name, 0.0)
  if weights:
    raise UserError(f"no loss is called {', '.join(weights)}; there are {', '.join(LOSSES)}")


def turn_off_augmentation(config: ConfigDict) -> None:
  """Draws every patch as it is: no flip, turn, zoom, shift, deformation or change of intensity."""
  neutral = Augmentation()
  for field in dataclasses.fields(neutral):
    if field.name != "scale_axes":  # which axes a factor of 1 is drawn for makes no difference
      config.augment[field.name] = getattr(neutral, field.name)
