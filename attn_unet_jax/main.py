"""Trains a network, then evaluates it on the fold's test cases.

  python -m attn_unet_jax.main --config=experiments/pancreas.py --workdir=runs/a

Every key of attn_unet_jax/config.py is a flag (--config.optimizer.learning_rate=3e-4). Started
again on the same workdir it goes on where it stopped; SIGTERM and SIGINT save and leave. Several
hosts train one run where each starts it: see docs/how-to/use-several-hosts.md.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from attn_unet_jax.cases.boxes import check_same
from attn_unet_jax.cases.fold import open_fold
from attn_unet_jax.config import stored as stored_config
from attn_unet_jax.config.flags import checked_config
from attn_unet_jax.runs import folder as run_folder
from attn_unet_jax.runtime import hosts, process
from attn_unet_jax.training.mesh import name_devices
from attn_unet_jax.workflows.stages.pipeline import train_stages
from attn_unet_jax.workflows.train import fit

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
config_flags.DEFINE_config_file("config", None, "Experiment file, such as experiments/pancreas.py.")
flags.mark_flag_as_required("config")
_COORDINATOR = flags.DEFINE_string(
  "coordinator",
  None,
  "Several hosts: HOST:PORT of process 0; auto: as the cluster tells; none: a run on each.",
)
_PROCESSES = flags.DEFINE_integer("processes", None, "With HOST:PORT: how many hosts.")
_PROCESS = flags.DEFINE_integer("process", None, "With HOST:PORT: which one this is, from 0.")


def main() -> None:
  """The command."""
  config = checked_config()
  workdir = Path(_WORKDIR.value or "")
  with hosts.join_hosts(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value):
    remedy = f"start all with the same flags, or, {hosts.SEPARATE_RUNS_HINT}"
    hosts.check_same_on_hosts("--config", stored_config.to_json(config), remedy)
    name_devices(config)
    if config.stages.count > 1:
      train_stages(config, workdir)
    else:
      begun = hosts.run_on_primary(run_folder.begun, workdir)
      fold = open_fold(config, workdir / "folds.json" if begun else None)
      if begun and fold.boxes:
        check_same(Path(config.data.boxes), fold.boxes)
      fit(config, fold, workdir)


if __name__ == "__main__":
  process.run_command(main)
