"""Trains one fold of a run of all folds in a process of its own, started by `parallel_folds`.

Standard input has one line of JSON, what is asked for, and stays open as long as the process that
started this one lives. When it ends, this one saves and leaves, as by SIGTERM.
"""

import json
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attn_unet_jax.runtime import process


def main() -> None:
  """Trains the fold that standard input names."""
  asked = json.loads(sys.stdin.readline())
  sys.argv[1:] = asked["command"]  # for the record of the run
  # Before JAX and NumPy count them.
  if asked["cores"] and hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, asked["cores"])
  with _stop_with_parent():
    _train(asked)


def _train(asked: Mapping[str, Any]) -> None:
  import jax

  from attn_unet_jax.config.build import replace_keys
  from attn_unet_jax.config.stored import load_config
  from attn_unet_jax.workflows.train_folds import train_and_describe
  from attn_unet_jax.workflows.train_run import train_fold

  if asked["gpu"] is not None:
    # These count among the GPUs that CUDA_VISIBLE_DEVICES leaves, as the number does.
    for key in ("jax_cuda_visible_devices", "jax_rocm_visible_devices"):
      jax.config.update(key, str(asked["gpu"]))
  workdir = Path(asked["workdir"])
  keys = {"data.fold": asked["fold"], "data.accept_changes": asked["accept_changes"]}
  config = replace_keys(load_config(workdir / "config.json"), keys)
  train_and_describe(config, workdir, train_fold)


@contextmanager
def _stop_with_parent() -> Iterator[None]:
  """Stops this process when standard input is closed, for as long as the work inside lasts."""
  reader, writer = os.pipe()

  def watch() -> None:
    """Waits for the end of standard input or of the work."""
    # The parent writes nothing more: what makes standard input readable is its end.
    ready, _, _ = select.select([sys.stdin.fileno(), reader], [], [])
    if reader not in ready:
      os.kill(os.getpid(), signal.SIGTERM)

  watcher = threading.Thread(target=watch, daemon=True)
  watcher.start()
  try:
    yield
  finally:
    os.close(writer)  # which ends the watcher
    watcher.join()
    os.close(reader)


if __name__ == "__main__":
  process.run_command(main)
