"""A training run that starts in seconds: for tests that kill it or fill its disk.

  python -m tests.tiny_run --config=tests/small.py --workdir=WORKDIR --config.data.dir=DIR ...

The network is the smallest there is, and every validation scores 0.5; all else is as in the
command. With --full_at=N no file can grow beyond 2000 bytes from the validation at step N on.
"""

import resource
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from attn_unet_jax import command, run
from attn_unet_jax.data.fold import open_fold
from attn_unet_jax.training.checkpoint import checkpoints
from attn_unet_jax.training.loop import train
from attn_unet_jax.training.state import TrainState
from tests.line import Line

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
_FULL_AT = flags.DEFINE_integer("full_at", -1, "Step from which the disk is full.")
config_flags.DEFINE_config_file("config", None, "Experiment file.")


def main() -> None:
  config, workdir = command.checked_config(), Path(_WORKDIR.value)

  def validate(state: TrainState) -> float:
    if int(state.step) == _FULL_AT.value:
      resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
    return 0.5

  fold = open_fold(config)
  run.claim(workdir, config)
  with run.recorded(workdir), checkpoints(workdir / "checkpoints", config.train.keep) as store:
    train(config, Line(batch_norm=True), fold.load, validate, store, workdir)


if __name__ == "__main__":
  command.run(main)
