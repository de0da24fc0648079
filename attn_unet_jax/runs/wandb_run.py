"""Writes the scalars of a run to Weights & Biases."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attn_unet_jax.runs.trackers import keep_tracker_id, read_settings, read_tracker_id
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError, format_error
from attn_unet_jax.runtime.extras import import_extra

_KEY = "config.train.writers=wandb"
_PROJECT = "attn-unet-jax"


def import_wandb() -> Any:
  """Imports W&B where it knows an account, or works offline.

  Raises:
    UserError: it is not installed, or would ask for an account.
  """
  wandb = import_extra("wandb", "wandb", _KEY)
  try:
    is_online = wandb.setup().settings.mode == "online"
    # A training in the background has nobody to answer a prompt.
    knows_whom = not is_online or wandb.login(prompt=False)
  except Exception as error:
    raise UserError(f"{_KEY}: {format_error(error)}; WANDB_MODE=offline needs no server") from None
  if not knows_whom:
    raise UserError(
      f"{_KEY}: no account; `wandb login` asks for one, WANDB_API_KEY names it, and "
      "WANDB_MODE=offline writes into the run's folder alone"
    )
  return wandb


class WandbRun:
  """A run in W&B, to which each start of a training adds its epochs.

  Only scalars and `config.json` are written: no console, no code, no names of cases.

  Args:
    workdir: the folder of the run, which keeps the id, and W&B's own files in `wandb/`.

  Raises:
    UserError: W&B does not take the run.
  """

  def __init__(self, workdir: Path):
    wandb = import_wandb()
    known = read_tracker_id(workdir, "wandb")
    # Chosen here, since W&B resumes a run by an id that it is given.
    begun = known or secrets.token_hex(8)
    try:
      self._run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", _PROJECT),
        id=begun,
        name=str(workdir),
        # W&B begins a run of this id, or goes on with it.
        resume="allow",
        dir=str(workdir),
        config=read_settings(workdir),
        allow_val_change=True,  # such as of train.epochs
        settings=wandb.Settings(console="off", silent=True, disable_git=True, save_code=False),
      )
      # Not W&B's own step, which could not go back to an epoch that is trained again.
      self._run.define_metric("*", step_metric="epoch")
    except Exception as error:
      raise UserError(
        f"{_KEY}: no run ({format_error(error)}); WANDB_MODE=offline needs no server"
      ) from None
    if not known:
      keep_tracker_id(workdir, "wandb", begun)
    print_line(f"W&B: run {begun}, {self._run.url or self._run.dir}")

  def write_epoch(self, epoch: int, values: Mapping[str, float]) -> None:
    """Adds an epoch; one that is trained again is there twice."""
    self._run.log({"epoch": epoch, **values})

  def close(self, *, done: bool) -> None:
    """Ends the run, as failed where the training did not come to its end."""
    self._run.finish(exit_code=0 if done else 1)
