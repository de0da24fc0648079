"""Opens a run for use: its config, its classes, its best parameters."""

import dataclasses
from pathlib import Path

from ml_collections import ConfigDict

from attn_unet_jax import config as config_keys
from attn_unet_jax.data.labels import class_names
from attn_unet_jax.errors import UserError
from attn_unet_jax.inference.sliding import SlidingWindow, System
from attn_unet_jax.run import begun
from attn_unet_jax.training.checkpoint import restore_best
from attn_unet_jax.training.state import abstract, network, window


@dataclasses.dataclass(frozen=True)
class Trained:
  """A run ready to segment; `step` is that of the checkpoint in use."""

  config: ConfigDict
  classes: tuple[str, ...]
  system: System
  step: int


def open_run(workdir: Path) -> Trained:
  """The best checkpoint of a run (by validation DSC; the newest if none was validated).

  Raises:
    UserError: no run, or no intact checkpoint in it.
  """
  config = config_keys.load(workdir / "config.json")
  classes = class_names(config.data.labels)
  module = network(config, len(classes) + 1)
  if not begun(workdir):
    raise UserError(f"{workdir}: no checkpoint yet; train it with attn_unet_jax.main first")
  state = restore_best(workdir / "checkpoints", abstract(config, module))
  system = SlidingWindow(config, module, window(config)).use(state.variables)
  return Trained(config, classes, system, int(state.step))
