"""Losses whose value over a batch is the mean of its parts' values, and those that are not."""

from attn_unet_jax.losses.options import LossOptions
from attn_unet_jax.runtime.errors import UserError


def is_mean_of_parts(loss: LossOptions) -> bool:
  """Whether the loss of a batch is the mean of its parts' losses."""
  return not any(term.entry.over_batch for term in loss.terms)


def check_mean_of_parts(loss: LossOptions, needs: str, instead: str) -> None:
  """Refuses a loss of a batch that is not the mean of its parts' losses.

  Args:
    loss: the terms.
    needs: the key and value that divide the batch.
    instead: the flag that does not.

  Raises:
    UserError: it is not.
  """
  for term in loss.terms:
    if term.entry.over_batch:
      raise UserError(
        f"config.loss.{term.name}={term.weight}: over a divided batch it is not the mean of its "
        f"parts, as {needs} needs; use {instead}"
      )
