"""Trains a network, then evaluates it on the fold's test cases.

  python -m attn_unet_jax.main --config=experiments/pancreas.py --workdir=runs/a
  python -m attn_unet_jax.main --workdir=runs/a

Every key of docs/reference/config.md is a flag (--config.optimizer.learning_rate=3e-4). Started
again on the same workdir it goes on where it stopped, by the config that is there if none is given;
SIGTERM and SIGINT save and leave. --config.data.fold=all trains every fold of the list, one after
the other, or one on each device with --parallel_folds, and pools their scores. Several hosts train
one run where each starts it: see docs/how-to/use-several-hosts.md.
"""

from absl import flags

from attn_unet_jax.config.flags import CONFIG_FLAGS, define_config
from attn_unet_jax.runs.builtin import find_own_run
from attn_unet_jax.runtime import process, xla
from attn_unet_jax.runtime.console import print_line
from attn_unet_jax.runtime.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
# Not required: a run that has begun has its own config.
define_config(required=False)
_COORDINATOR = flags.DEFINE_string(
  "coordinator",
  None,
  "Several hosts: HOST:PORT of process 0; auto: as the cluster tells; none: a run on each.",
)
_PROCESSES = flags.DEFINE_integer("processes", None, "With HOST:PORT: how many hosts.")
_PROCESS = flags.DEFINE_integer("process", None, "With HOST:PORT: which one this is, from 0.")
_PARALLEL_FOLDS = flags.DEFINE_bool(
  "parallel_folds",
  False,
  "With --config.data.fold=all: train folds side by side, one on each GPU; without a GPU, each on "
  "a part of the cores.",
)


def main() -> None:
  """Trains a run, alone or as one of several hosts."""
  text = _WORKDIR.value or ""
  workdir = find_own_run(text, f"--config.init.workdir={text} starts a run from it")
  config = CONFIG_FLAGS.read(run=workdir)
  if _PARALLEL_FOLDS.value and config.data.fold != "all":
    raise UserError("--parallel_folds: is for all folds; add --config.data.fold=all")
  from attn_unet_jax.runtime import hosts  # loads JAX, which --help and mistakes do without
  from attn_unet_jax.workflows.fold_places import find_devices
  from attn_unet_jax.workflows.model_card import write_card_after_training
  from attn_unet_jax.workflows.report_run import report_after_training
  from attn_unet_jax.workflows.train_run import train_run

  with hosts.join_hosts(_COORDINATOR.value, _PROCESSES.value, _PROCESS.value):
    # For folds side by side by another process: what this one opened would not be free for them.
    devices = find_devices() if _PARALLEL_FOLDS.value else None
    print_line(f"device: {devices.described if devices else xla.describe_devices()}")
    train_run(config, workdir, devices)
    # Cards and pages are files of the run, which one host writes.
    hosts.run_on_primary(write_card_after_training, workdir)
    hosts.run_on_primary(report_after_training, workdir)


def run() -> None:
  """Starts the command."""
  process.run_command(main, CONFIG_FLAGS)


if __name__ == "__main__":
  run()
