"""Trains a network, then evaluates it on the fold's test cases.

  python -m attn_unet_jax.main --config=experiments/pancreas.py --workdir=runs/a

Every key of attn_unet_jax/config.py is a flag (--config.optimizer.learning_rate=3e-4). Started
again on the same workdir it goes on where it stopped; SIGTERM and SIGINT save and leave.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from attn_unet_jax import command, run
from attn_unet_jax.data.boxes import check_same
from attn_unet_jax.data.fold import open_fold
from attn_unet_jax.stages.pipeline import train_stages
from attn_unet_jax.training.fit import fit

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
config_flags.DEFINE_config_file("config", None, "Experiment file, such as experiments/pancreas.py.")
flags.mark_flag_as_required("config")


def main() -> None:
  """The command."""
  config = command.checked_config()
  workdir = Path(_WORKDIR.value or "")
  if config.stages.count > 1:
    train_stages(config, workdir)
  else:
    begun = run.begun(workdir)
    fold = open_fold(config, workdir / "folds.json" if begun else None)
    if begun and fold.boxes:
      check_same(Path(config.data.boxes), fold.boxes)
    fit(config, fold, workdir)


if __name__ == "__main__":
  command.run(main)
