"""Tells losses that are the mean over the parts of a batch from losses that are not.

Only the former can be computed part by part, on one device or on several.
"""

from attn_unet_jax.losses.options import LossOptions
from attn_unet_jax.runtime.errors import UserError


def is_mean_of_parts(loss: LossOptions) -> bool:
  """Returns whether the loss of a batch is the mean of the losses of its parts."""
  # One term over the whole batch, such as a ratio of sums, is enough to break it.
  return not any(term.entry.over_batch for term in loss.terms)


def check_mean_of_parts(loss: LossOptions, needs: str, instead: str) -> None:
  """Checks that the loss of a batch is the mean of the losses of its parts.

  Args:
    loss: the terms of the loss.
    needs: the config key and value that divide the batch, for the message.
    instead: the flag that does not divide it, for the message.

  Raises:
    UserError: a term is not such a mean.
  """
  for term in loss.terms:
    if term.entry.over_batch:
      raise UserError(
        f"config.loss.{term.name}={term.weight}: over a divided batch it is not the mean of its "
        f"parts, as {needs} needs; use {instead}"
      )
