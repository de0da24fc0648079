"""Builds phantom scans, trains a small network on them, and segments some that it never saw.

  attn-unet-jax demo
  attn-unet-jax demo --workdir=runs/demo --data_dir=data --config.train.epochs=1

Takes minutes on two cores. What was built and trained stays, and a second start goes on with it.
Further --config.KEY=VALUE flags are those of training.
"""

import subprocess
import sys

from absl import flags

from attn_unet_jax.config.flags import CONFIG_FLAGS
from attn_unet_jax.runs.builtin import find_own_run
from attn_unet_jax.runtime import process

_WORKDIR = flags.DEFINE_string("workdir", "runs/demo", "Folder of the run.")
_DATA_DIR = flags.DEFINE_string("data_dir", "data", "Folder of the records.")


def main() -> None:
  """Builds, then trains, each by its own command."""
  find_own_run(_WORKDIR.value or "", "name another folder")  # before anything is built
  keys = [f"--config.{key}={text}" for key, text in CONFIG_FLAGS.texts.items()]
  data = f"--config.data.dir={_DATA_DIR.value}"
  _run("tfds_pancreas.build", "--dataset=phantom_ct/demo", f"--data_dir={_DATA_DIR.value}")
  _run(
    "attn_unet_jax.main", "--config=pancreas:phantom", f"--workdir={_WORKDIR.value}", data, *keys
  )


def _run(module: str, *arguments: str) -> None:
  """Runs a command to its end; passes a stop signal on, and its status back."""
  # A process each: absl has one table of flags in a process, and the three commands share names.
  child = subprocess.Popen([sys.executable, "-m", module, *arguments])
  try:
    status = child.wait()
  except BaseException:  # a signal: the command saves and leaves
    child.terminate()
    child.wait()
    raise
  if status:
    # A signal that ends a child is a negative status. Shells report 128 more than its number.
    sys.exit(status if status > 0 else 128 - status)


def run() -> None:
  """Starts the command."""
  process.run_command(main, CONFIG_FLAGS)


if __name__ == "__main__":
  run()
